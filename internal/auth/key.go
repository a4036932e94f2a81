package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// The algorithms of "Signing in" of the wire contract (RFC 7518, section 3.1; RFC 8037, section 3.1).
const (
	hs256 = "HS256"
	rs256 = "RS256"
	es256 = "ES256"
	eddsa = "EdDSA"
)

const (
	// SecretBytesMin is the length of a hash value of HS256, the least that RFC 7518, section 3.2, allows.
	SecretBytesMin = 32

	rsaBitsMin      = 2048 // RFC 7518, section 3.3
	keysMax         = 64   // in a file or a JWKS
	keyFileBytesMax = 1 << 20
)

// key verifies signatures of one algorithm.
type key struct {
	alg   string
	kid   string // empty unless it came from a JWKS that names it
	value any    // what golang-jwt expects for alg
}

// publicKey pins p to the algorithm of its type.
func publicKey(p crypto.PublicKey) (key, error) {
	switch p := p.(type) {
	case *rsa.PublicKey:
		if p.N.BitLen() < rsaBitsMin {
			return key{}, fmt.Errorf("an RSA key of %d bits; it must have %d", p.N.BitLen(), rsaBitsMin)
		}
		return key{alg: rs256, value: p}, nil
	case *ecdsa.PublicKey:
		if p.Curve != elliptic.P256() {
			return key{}, errors.New("an elliptic curve other than P-256")
		}
		return key{alg: es256, value: p}, nil
	case ed25519.PublicKey:
		return key{alg: eddsa, value: p}, nil
	}
	return key{}, fmt.Errorf("a key of the unsupported type %T", p)
}

// readKeyFile reads the public keys of a PEM file: PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE, one or several.
func readKeyFile(path string) ([]key, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("auth: key file: %w", err)
	}
	if info.Size() > keyFileBytesMax {
		return nil, fmt.Errorf("auth: key file %s is larger than %d bytes", path, keyFileBytesMax)
	}
	rest, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("auth: key file: %w", err)
	}
	var keys []key
	for {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		public, err := parseBlock(block)
		if err != nil {
			return nil, fmt.Errorf("auth: key file %s: %w", path, err)
		}
		k, err := publicKey(public)
		if err != nil {
			return nil, fmt.Errorf("auth: key file %s: %w", path, err)
		}
		if keys = append(keys, k); len(keys) > keysMax {
			return nil, fmt.Errorf("auth: key file %s: more than %d keys", path, keysMax)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("auth: key file %s: no public key in PEM form", path)
	}
	return keys, nil
}

func parseBlock(block *pem.Block) (crypto.PublicKey, error) {
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return c.PublicKey, nil
	case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY":
		return nil, errors.New("it holds a private key, which signs; this server needs the public one")
	}
	return nil, fmt.Errorf("it holds a PEM block of the unknown type %q", block.Type)
}
