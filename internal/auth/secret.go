package auth

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"parley/internal/id"
)

// secretFile is the name, in the data folder, of the secret that is made at the first start.
const secretFile = "jwt-secret"

// LoadSecret reads the secret of the data folder, and makes it first if there is none: 32 random bytes in base64url, in a
// file for its owner only. What is signed with is the text of the file without white space around it, so that it can be
// copied into another program as it stands.
//
// The file is on disk, whole, when LoadSecret returns; of several processes that make it at once, all get the same.
func LoadSecret(dataDir string) ([]byte, error) {
	path := filepath.Join(dataDir, secretFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeSecret(dataDir, path); err != nil {
			return nil, fmt.Errorf("auth: make the token secret: %w", err)
		}
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("auth: read the token secret: %w", err)
	}
	secret := []byte(strings.TrimSpace(string(text)))
	if err := checkSecret(secret); err != nil {
		return nil, fmt.Errorf("%w (in %s)", err, path)
	}
	return secret, nil
}

func makeSecret(dataDir, path string) (err error) {
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dataDir, secretFile+"-*") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	random := make([]byte, SecretBytesMin)
	rand.Read(random) // never fails
	if _, err = f.WriteString(base64.RawURLEncoding.EncodeToString(random) + "\n"); err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	// A link, unlike a rename, leaves what another process has made meanwhile.
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	dir, err := os.Open(dataDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func checkSecret(secret []byte) error {
	if len(secret) < SecretBytesMin {
		return fmt.Errorf("auth: the token secret has %d bytes; it needs at least %d", len(secret), SecretBytesMin)
	}
	return nil
}

// Claims are what a token is to say.
type Claims struct {
	Sub      id.User
	Name     string // may be empty
	Role     Role   // empty: none
	TTL      time.Duration
	Audience string // empty: none
	Issuer   string // empty: none
}

// Mint makes an HS256 token that a [Verifier] with the same secret accepts from now on, for TTL.
//
// Errors: a secret that is too short, a Sub that is no user id, an unknown Role, a TTL below a second.
func Mint(secret []byte, c Claims, now time.Time) (string, error) {
	if err := checkSecret(secret); err != nil {
		return "", err
	}
	if _, err := id.ParseUser(string(c.Sub)); err != nil {
		return "", fmt.Errorf("auth: user id: 1 to %d bytes without control characters: %w", id.UserBytesMax, err)
	}
	if c.TTL < time.Second {
		return "", errors.New("auth: a token lives for a second at least")
	}
	m := jwt.MapClaims{
		"sub": string(c.Sub),
		"iat": now.Unix(),
		"exp": now.Add(c.TTL).Unix(),
		"jti": rand.Text(),
	}
	switch c.Role {
	case "":
	case RoleUser, RoleAdmin, RoleGuest:
		m["role"] = string(c.Role)
	default:
		return "", fmt.Errorf("auth: unknown role %q; the roles are %s, %s and %s", c.Role, RoleUser, RoleAdmin, RoleGuest)
	}
	for name, value := range map[string]string{"name": c.Name, "aud": c.Audience, "iss": c.Issuer} {
		if value != "" {
			m[name] = value
		}
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, m).SignedString(secret)
	if err != nil {
		return "", fmt.Errorf("auth: sign a token: %w", err)
	}
	return token, nil
}
