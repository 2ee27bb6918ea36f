package pki

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
)

// NewJoinToken makes a secret of at least 128 bits that a Machine manifest brings
// to a node, so that its owner recognises the node by JoinProof. It signs
// nothing and opens nothing.
func NewJoinToken() string { return rand.Text() }

// JoinProof is what a node with a token shows beside its certificate, in DER: who
// relays the proof has the certificate of another machine, for which it is not
// good. It is HMAC-SHA256 (RFC 2104).
func JoinProof(token string, certificate []byte) []byte {
	mac := hmac.New(sha256.New, []byte(token))
	mac.Write([]byte("oscine node joins\x00"))
	mac.Write(certificate)
	return mac.Sum(nil)
}

// ProvesJoin reports whether a proof is that of the token for a certificate. An
// empty token proves nothing.
func ProvesJoin(token string, certificate, proof []byte) bool {
	return token != "" && hmac.Equal(proof, JoinProof(token, certificate))
}
