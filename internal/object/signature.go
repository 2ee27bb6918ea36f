package object

import (
	"encoding/json"
	"fmt"

	"oscine.dev/oscine/internal/signature"
)

// Signer is one whose signature counts: a key, which may also be written as a text in place of
// the mapping, or an identity of Sigstore, which signs keyless.
type Signer struct {
	// Key is a public key, or the certificate of an authority whose certificates sign, in PEM.
	Key string `json:"key,omitempty"`
	// Identity is that of the signer's certificate: an e-mail address or a URI.
	Identity string `json:"identity,omitempty"`
	// IdentityRegexp is found in the identity, as cosign takes it: begin it with ^ and end it with $ to describe it whole.
	IdentityRegexp string `json:"identityRegexp,omitempty"`
	// Issuer is who vouches for the identity, such as https://accounts.google.com; required with an identity.
	Issuer string `json:"issuer,omitempty"`
}

// setText makes a text the key.
func (s *Signer) setText(text string) { s.Key = text }

// MarshalJSON implements json.Marshaler: a key is written as a text.
func (s Signer) MarshalJSON() ([]byte, error) {
	if s.Key != "" && s == (Signer{Key: s.Key}) {
		return json.Marshal(s.Key)
	}
	type mapping Signer
	return json.Marshal(mapping(s))
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Signer) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		*s = Signer{}
		return json.Unmarshal(b, &s.Key)
	}
	type mapping Signer
	return json.Unmarshal(b, (*mapping)(s))
}

// Signers are the keys and identities of a list, whose signatures the trusted root verifies; nil:
// there is none.
func Signers(root signature.Root, list []Signer) (*signature.Keys, error) {
	signers := make([]signature.Signer, len(list))
	for i, s := range list {
		signers[i] = signature.Signer(s)
	}
	return signature.NewKeys(root, signers...)
}

// maxSigners bounds the entries of one list.
const maxSigners = 16

func checkSignedBy(c *Checker, at string, list []Signer) {
	if len(list) > maxSigners {
		c.Bad(at, "has %d entries, at most %d are accepted", len(list), maxSigners)
		return
	}
	for i, s := range list {
		if _, err := Signers(nil, []Signer{s}); err != nil {
			c.Bad(fmt.Sprintf("%s[%d]", at, i), "%v", err)
		}
	}
}

// check checks which models may be served.
func (m *MachineModels) check(c *Checker) {
	const root = "spec.models.trustedRoot"
	checkSignedBy(c, "spec.models.signedBy", m.SignedBy)
	if m.TrustedRoot != "" {
		if err := signature.CheckRoot([]byte(m.TrustedRoot)); err != nil {
			c.Bad(root, "%v", err)
		}
		return
	}
	for i, s := range m.SignedBy {
		if s.Key == "" {
			c.Bad(fmt.Sprintf("spec.models.signedBy[%d]", i), "an identity is verified by a trusted root: give it as %s", root)
		}
	}
}
