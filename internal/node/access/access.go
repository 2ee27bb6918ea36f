package access

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/durable"
)

// Revocation is a client certificate that is refused.
type Revocation struct {
	Serial string    `json:"serial"`         // as pki.Serial writes it
	Name   string    `json:"name,omitempty"` // of its owner, for people
	By     string    `json:"by"`             // who revoked it
	At     time.Time `json:"at"`
}

// Reasons of what Noted is called with.
const (
	ReasonRevoked  = "CertificateRevoked"
	ReasonRestored = "CertificateRestored"
)

// Bounds of the list.
const (
	maxRevoked = 10_000
	maxName    = 256 // bytes
)

// ErrNotRevoked is returned by Restore for a serial number that is not listed.
var ErrNotRevoked = errdefs.ErrNotFound.WithMessage("not revoked")

// List is the certificates that a node refuses. A change is on disk before its
// method returns. It is safe for concurrent use.
type List struct {
	// Noted is called with each change that was made, in words; nil for nothing. Set
	// it before the list is in use.
	Noted func(reason, message string)

	path string

	mu      sync.RWMutex
	revoked map[string]Revocation
}

// Open reads the list, which may not be there yet. One that cannot be read is
// an error: without it the node would let revoked clients in.
func Open(path string) (*List, error) {
	l := &List{path: path, revoked: map[string]Revocation{}}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the revoked certificates: %w", err)
	}
	var all []Revocation
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("read the revoked certificates: %s: %w: remove the file, and revoke them again", path, err)
	}
	for _, r := range all {
		l.revoked[r.Serial] = r
	}
	return l, nil
}

// Revoked reports whether a certificate is refused.
func (l *List) Revoked(serial string) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	_, ok := l.revoked[serial]
	return ok
}

// All returns the list in the order of the revocations.
func (l *List) All() []Revocation {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return sorted(l.revoked)
}

func sorted(revoked map[string]Revocation) []Revocation {
	return slices.SortedFunc(maps.Values(revoked), func(a, b Revocation) int {
		if c := a.At.Compare(b.At); c != 0 {
			return c
		}
		return strings.Compare(a.Serial, b.Serial)
	})
}

// Revoke adds certificates, all or none; one that is listed stays as it is.
func (l *List) Revoke(certificates []Revocation) error {
	var added []Revocation
	err := l.change(func(revoked map[string]Revocation) error {
		for _, r := range certificates {
			if len(r.Name) > maxName {
				return fmt.Errorf("%w: the name of a certificate has at most %d bytes, got %d", errdefs.ErrInvalidArgument, maxName, len(r.Name))
			}
			if _, ok := revoked[r.Serial]; !ok {
				revoked[r.Serial] = r
				added = append(added, r)
			}
		}
		if len(revoked) > maxRevoked {
			return fmt.Errorf("%w: at most %d certificates can be revoked: restore those that have expired", errdefs.ErrResourceExhausted, maxRevoked)
		}
		return nil
	})
	if err == nil {
		l.note(ReasonRevoked, "revoked", added, "")
	}
	return err
}

// Restore takes certificates off the list, all or none; by is who asks for it.
// Errors: ErrNotRevoked.
func (l *List) Restore(serials []string, by string) error {
	var removed []Revocation
	err := l.change(func(revoked map[string]Revocation) error {
		for _, serial := range serials {
			r, ok := revoked[serial]
			if !ok {
				return fmt.Errorf("certificate %.60q: %w", serial, ErrNotRevoked)
			}
			removed = append(removed, r)
			delete(revoked, serial)
		}
		return nil
	})
	if err == nil {
		l.note(ReasonRestored, "restored", removed, by)
	}
	return err
}

// note tells what was done to certificates, by somebody or who revoked each.
func (l *List) note(reason, did string, certificates []Revocation, by string) {
	if l.Noted == nil {
		return
	}
	for _, r := range certificates {
		of := ""
		if r.Name != "" {
			of = fmt.Sprintf(" of %q", r.Name)
		}
		l.Noted(reason, fmt.Sprintf("certificate %s%s %s by %q", r.Serial, of, did, cmp.Or(by, r.By)))
	}
}

// change edits a copy, which takes the list's place once it is on disk.
func (l *List) change(edit func(map[string]Revocation) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed := maps.Clone(l.revoked)
	if err := edit(changed); err != nil {
		return err
	}
	raw, err := json.Marshal(sorted(changed))
	if err != nil {
		return err
	}
	if err := durable.WriteFile(l.path, raw, 0o600); err != nil {
		return fmt.Errorf("write the revoked certificates: %w", err)
	}
	l.revoked = changed
	return nil
}
