package pack

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/pki"
	"oscine.dev/oscine/internal/release"
)

// ErrUntrusted means that no admin of the node's cluster has signed a pack.
var ErrUntrusted = errdefs.ErrPermissionDenied.WithMessage("pack not trusted")

// record is the JSON file that says which file is the pack of a name: one name, one
// record, so that none is ever installed twice. Anyone who can write to the disk can write
// it: only the signature counts, and what it is for, or what the node knows of a release.
type record struct {
	Digest    string        `json:"digest"`
	SizeBytes int64         `json:"sizeBytes"`
	Installed time.Time     `json:"installed"`
	Manifest  Manifest      `json:"manifest"`
	Signature pki.Signature `json:"signature"`
	Release   string        `json:"release,omitempty"` // see Info, as of those below
	Verity    string        `json:"verity,omitempty"`
	Damaged   time.Time     `json:"damaged,omitzero"`
	Source    string        `json:"source,omitempty"`
	PlainHTTP bool          `json:"plainHTTP,omitempty"`
	// Of an older version that is kept.
	Next  string            `json:"next,omitempty"`
	Stays map[string]string `json:"stays,omitempty"`
}

// hex is the digest as part of a file's name.
func (r *record) hex() string { return strings.TrimPrefix(r.Digest, "sha256:") }

// parseRecord reads the record of the pack with a name.
func parseRecord(text []byte, name string) (*record, error) {
	var rec record
	if err := json.Unmarshal(text, &rec); err != nil {
		return nil, err
	}
	if !digestRE.MatchString(rec.Digest) || len(rec.hex()) != 64 {
		return nil, errors.New("it has no digest")
	}
	if err := rec.Manifest.check(); err != nil {
		return nil, err
	}
	if _, err := release.ParseVerity(rec.Verity); rec.Verity != "" && err != nil {
		return nil, fmt.Errorf("verity: %w", err)
	}
	if rec.Manifest.Name != name {
		return nil, errors.New("it is for a pack of another name")
	}
	return &rec, nil
}

func readRecord(file, name string) (*record, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	rec, err := parseRecord(text, name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return rec, nil
}

func (r *record) write(file string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return durable.WriteFile(file, text, 0o600)
}

// statement is what an admin signs of a pack: its digest, and the root hash of its
// hash tree where it has one; see Info.Verity.
func statement(digest, verity string) []byte {
	if verity == "" {
		return []byte("oscine.dev/pack/v1\n" + digest + "\n")
	}
	return []byte("oscine.dev/pack/v2\n" + digest + "\n" + verity + "\n")
}

// Sign signs a pack's file: sign is the client's, as pki.Sign.
func Sign(file string, sign func(statement []byte) (pki.Signature, error)) (pki.Signature, error) {
	signature, _, err := signFile(file, sign)
	return signature, err
}

// signFile is Sign, and returns what was signed besides the digest.
func signFile(file string, sign func(statement []byte) (pki.Signature, error)) (signature pki.Signature, verity string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return signature, "", fmt.Errorf("sign the pack: %w", err)
	}
	defer f.Close()
	if verity, err = verityOf(f); err != nil {
		return signature, "", fmt.Errorf("sign the pack %s: %w", file, err)
	}
	digest, err := sumOf(f)
	if err != nil {
		return signature, "", fmt.Errorf("sign the pack: %w", err)
	}
	signature, err = sign(statement(digest, verity))
	return signature, verity, err
}

// welcome is authentic for a pack that comes now: the signer has not been revoked
// since.
func (s *Store) welcome(digest, verity string, signature pki.Signature) error {
	if _, err := s.authentic(digest, verity, signature, ""); err != nil {
		return err
	}
	if serial := signature.Serial(); s.Revoked != nil && s.Revoked(serial) {
		return fmt.Errorf("%w: the certificate of the signer %q is revoked (%s): an admin of this node installs it with oscine pack install", ErrUntrusted, signature.Signer(), serial)
	}
	return nil
}

// authentic holds that an admin signed a pack, or that a release of Oscine pins it
// which this node has verified. It reports whether that holds for the root hash too:
// releases and admins vouch for the digest only where their oscine knew of none.
func (s *Store) authentic(digest, verity string, signature pki.Signature, pinnedBy string) (root bool, err error) {
	if pinnedBy != "" {
		pinned, ok := "", false
		if s.Pinned != nil {
			pinned, ok = s.Pinned(digest)
		}
		if !ok {
			return false, fmt.Errorf("%w: no release that this node has verified pins it: an admin of this node installs it with oscine pack install", ErrUntrusted)
		}
		return verity != "" && verity == pinned, nil
	}
	err = signature.Check(s.trust, pki.Admin, statement(digest, verity))
	if err != nil && verity != "" && signature.Check(s.trust, pki.Admin, statement(digest, "")) == nil {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w: an admin of this node installs it with oscine pack install", ErrUntrusted, err)
	}
	return verity != "", nil
}
