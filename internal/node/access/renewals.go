package access

import (
	"cmp"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/pki"
)

// Reasons of what Renewals.Noted is called with.
const (
	ReasonRenewalAsked = "RenewalAsked"
	ReasonRenewed      = "CertificateRenewed"
)

// maxRenewals bounds the renewals that are kept: clients whose certificates end in
// the same month.
const maxRenewals = 256

// askAgain is how long the owner of a certificate waits before asking with another
// key while nobody has answered: each such change is a write to disk and an event.
const askAgain = time.Minute

// AskedRenewal is a client's request for another certificate.
type AskedRenewal struct {
	pki.Renewal
	At          time.Time `json:"at"`
	Until       time.Time `json:"until"`                 // when the certificate to renew expires
	Certificate string    `json:"certificate,omitempty"` // the new one, PEM; empty until it is signed
}

// Renewals passes clients' requests for other certificates on to the person who
// holds the authority's key, and the answers back. A change is on disk before its
// method returns. It is safe for concurrent use.
type Renewals struct {
	// Noted is called with each change, in words; nil for nothing. Set it before the
	// renewals are in use.
	Noted func(reason, message string)

	path string

	mu    sync.Mutex
	asked map[string]AskedRenewal // by the serial number of the certificate to renew
}

// OpenRenewals reads the renewals, of which there may be none yet. Clients ask
// again where the file cannot be read.
func OpenRenewals(path string, log *slog.Logger) *Renewals {
	r := &Renewals{path: path, asked: map[string]AskedRenewal{}}
	raw, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(raw, &r.asked)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Error("read the renewals of certificates: clients have to ask again", "error", err)
	}
	if r.asked == nil || err != nil {
		r.asked = map[string]AskedRenewal{}
	}
	return r
}

// Ask notes a renewal that pki.Renewal.Check accepts, of a certificate. It returns the new
// one where it is signed, as PEM, else "". It returns ErrResourceExhausted where too many
// ask, or one asks with key after key.
func (r *Renewals) Ask(before *x509.Certificate, renewal pki.Renewal, now time.Time) (certificate string, err error) {
	serial := pki.Serial(before)
	r.mu.Lock()
	known, ok := r.asked[serial]
	r.mu.Unlock()
	if ok && known.SameKey(renewal) {
		return known.Certificate, nil
	}
	err = r.change(now, func(asked map[string]AskedRenewal) error {
		known, ok := asked[serial]
		since := now.Sub(known.At)
		if ok && known.Certificate == "" && since >= 0 && since < askAgain && !known.SameKey(renewal) {
			return fmt.Errorf("%w: certificate %s asked for a renewal with another key less than a minute ago: ask again in a minute", errdefs.ErrResourceExhausted, serial)
		}
		if asked[serial] = (AskedRenewal{Renewal: renewal, At: now, Until: before.NotAfter}); len(asked) > maxRenewals {
			return fmt.Errorf("%w: at most %d clients can ask for a renewal at a time: ask for new credentials instead (oscine config credentials)", errdefs.ErrResourceExhausted, maxRenewals)
		}
		return nil
	})
	if err == nil {
		r.note(ReasonRenewalAsked, fmt.Sprintf("%q asks for a renewal of certificate %s, which expires on %s: approve it with oscine config approve", before.Subject.CommonName, serial, before.NotAfter.Format(time.DateOnly)))
	}
	return "", err
}

// Pending returns the renewals that nobody has signed, the oldest first.
func (r *Renewals) Pending(now time.Time) []AskedRenewal {
	r.mu.Lock()
	defer r.mu.Unlock()
	var pending []AskedRenewal
	for _, a := range r.asked {
		if a.Certificate == "" && now.Before(a.Until) {
			pending = append(pending, a)
		}
	}
	slices.SortFunc(pending, func(a, b AskedRenewal) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(string(a.Request), string(b.Request)))
	})
	return pending
}

// Answer keeps the new certificate, PEM, for the client that asks for it; by is who
// brings it. It fails unless the certificate is by the authority, for the key, name and role that were asked for.
func (r *Renewals) Answer(authority *x509.CertPool, serial, certificate, by string, now time.Time) error {
	err := r.change(now, func(asked map[string]AskedRenewal) error {
		a, ok := asked[serial]
		if !ok {
			return fmt.Errorf("%w: no renewal is asked for of certificate %.60q", errdefs.ErrNotFound, serial)
		}
		if err := a.CheckAnswer(authority, []byte(certificate), now); err != nil {
			return fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
		}
		a.Certificate = certificate
		asked[serial] = a
		return nil
	})
	if err == nil {
		r.note(ReasonRenewed, fmt.Sprintf("certificate %s renewed by %q", serial, by))
	}
	return err
}

// Drop forgets the renewals of certificates, such as of revoked ones.
func (r *Renewals) Drop(serials []string, now time.Time) error {
	r.mu.Lock()
	known := slices.ContainsFunc(serials, func(serial string) bool { _, ok := r.asked[serial]; return ok })
	r.mu.Unlock()
	if !known {
		return nil
	}
	return r.change(now, func(asked map[string]AskedRenewal) error {
		for _, serial := range serials {
			delete(asked, serial)
		}
		return nil
	})
}

func (r *Renewals) note(reason, message string) {
	if r.Noted != nil {
		r.Noted(reason, message)
	}
}

// change edits a copy without what has expired, which takes the place of all once
// it is on disk.
func (r *Renewals) change(now time.Time, edit func(map[string]AskedRenewal) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed := maps.Clone(r.asked)
	maps.DeleteFunc(changed, func(_ string, a AskedRenewal) bool { return now.After(a.Until) })
	if err := edit(changed); err != nil {
		return err
	}
	raw, err := json.Marshal(changed)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(r.path, raw, 0o600); err != nil {
		return fmt.Errorf("write the renewals of certificates: %w", err)
	}
	r.asked = changed
	return nil
}
