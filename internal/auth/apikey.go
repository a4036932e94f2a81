package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
)

// APIKeyBytesMin is the length of the shortest API key, in bytes.
const APIKeyBytesMin = 16

// APIKeys are the keys that an application's own server may use. The zero value accepts none.
type APIKeys struct {
	digests [][sha256.Size]byte
}

// NewAPIKeys takes several keys, so that one can be replaced by another without a break.
func NewAPIKeys(keys []string) (APIKeys, error) {
	var a APIKeys
	for i, k := range keys {
		if len(k) < APIKeyBytesMin {
			return APIKeys{}, fmt.Errorf("auth: API key %d has %d bytes; it needs at least %d", i+1, len(k), APIKeyBytesMin)
		}
		a.digests = append(a.digests, sha256.Sum256([]byte(k)))
	}
	return a, nil
}

// Match tells whether k is one of the keys. How long it takes tells nothing of them.
func (a APIKeys) Match(k string) bool {
	digest := sha256.Sum256([]byte(k))
	match := 0
	for i := range a.digests {
		match |= subtle.ConstantTimeCompare(digest[:], a.digests[i][:])
	}
	return match == 1
}
