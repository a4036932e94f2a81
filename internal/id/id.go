package id

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/fnv"
	"time"
	"unicode/utf8"
)

// Buckets is the number of logs that conversations are hashed into. It is recorded in the
// database when that is made, and can never change after.
const Buckets = 256

// UserBytesMax is the length of the longest user id, in bytes.
const UserBytesMax = 128

// Bucket numbers a log: 0 to Buckets-1.
type Bucket uint8

// User is the application's own name for a user: 1 to UserBytesMax bytes of UTF-8 without control characters.
type User string

// Conversation is a UUIDv7 in canonical lower-case form that carries its bucket.
type Conversation string

// Message is a UUIDv7 in canonical lower-case form that carries its conversation's bucket.
type Message string

// ErrMalformed says that a text is no id of the kind asked for.
var ErrMalformed = errors.New("id: malformed")

// NewConversation makes an id in bucket b at the time now.
func NewConversation(b Bucket, now time.Time) Conversation { return Conversation(newUUID(b, now)) }

// NewMessage makes an id in bucket b at the time now.
func NewMessage(b Bucket, now time.Time) Message { return Message(newUUID(b, now)) }

// RandomBucket is where a new group or channel goes.
func RandomBucket() Bucket {
	var b [1]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return Bucket(b[0])
}

// PairBucket is the bucket of the direct conversation of a pair, and the pair's key there. It does
// not matter which of the two is named first.
func PairBucket(a, b User) (Bucket, string) {
	if b < a {
		a, b = b, a
	}
	// A length in front keeps ("ab","c") and ("a","bc") apart whatever the ids hold.
	key := string(binary.AppendUvarint(nil, uint64(len(a)))) + string(a) + string(b)
	h := fnv.New32a()
	h.Write([]byte(key))
	sum := h.Sum32()
	return Bucket(sum ^ sum>>8 ^ sum>>16 ^ sum>>24), hex.EncodeToString([]byte(key))
}

// Bucket is where the conversation lives. The id must have come from this package or ParseConversation.
func (c Conversation) Bucket() Bucket { return bucketOf(string(c)) }

// Bucket is where the message lives. The id must have come from this package or ParseMessage.
func (m Message) Bucket() Bucket { return bucketOf(string(m)) }

// ParseConversation takes the canonical form only; what else names no conversation.
func ParseConversation(s string) (Conversation, error) {
	if !isUUIDv7(s) {
		return "", ErrMalformed
	}
	return Conversation(s), nil
}

// ParseMessage takes the canonical form only; what else names no message.
func ParseMessage(s string) (Message, error) {
	if !isUUIDv7(s) {
		return "", ErrMalformed
	}
	return Message(s), nil
}

// ParseUser checks length, encoding and the absence of control characters.
func ParseUser(s string) (User, error) {
	if s == "" || len(s) > UserBytesMax || !utf8.ValidString(s) {
		return "", ErrMalformed
	}
	for _, r := range s {
		if r < 0x20 || r == 0x7f {
			return "", ErrMalformed
		}
	}
	return User(s), nil
}

// newUUID follows RFC 9562, section 5.7: 48 bits of milliseconds, version 7, rand_a (here the
// bucket and four random bits), variant 10, 62 random bits.
func newUUID(b Bucket, now time.Time) string {
	var u [16]byte
	rand.Read(u[6:])
	ms := uint64(now.UnixMilli())
	u[0], u[1], u[2], u[3], u[4], u[5] = byte(ms>>40), byte(ms>>32), byte(ms>>24), byte(ms>>16), byte(ms>>8), byte(ms)
	u[6] = 0x70 | byte(b)>>4
	u[7] = byte(b)<<4 | u[7]&0x0f
	u[8] = 0x80 | u[8]&0x3f
	var s [36]byte
	hex.Encode(s[0:8], u[0:4])
	hex.Encode(s[9:13], u[4:6])
	hex.Encode(s[14:18], u[6:8])
	hex.Encode(s[19:23], u[8:10])
	hex.Encode(s[24:36], u[10:16])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return string(s[:])
}

// bucketOf reads the two hex digits behind the version digit.
func bucketOf(s string) Bucket { return Bucket(unhex(s[15])<<4 | unhex(s[16])) }

func unhex(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

func isUUIDv7(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		case 14:
			if c != '7' {
				return false
			}
		case 19:
			if c != '8' && c != '9' && c != 'a' && c != 'b' {
				return false
			}
		default:
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
	}
	return true
}
