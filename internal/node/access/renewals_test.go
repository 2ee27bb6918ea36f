package access

import (
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/pki"
)

// Renewals are bounded, leave with their certificates, and a damaged file costs
// nothing but asking again.
func TestRenewalsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		authority, err := pki.NewAuthority("test")
		if err != nil {
			t.Fatal(err)
		}
		key, err := pki.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "renewals.json")
		log := slog.New(slog.DiscardHandler)
		if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		renewals := OpenRenewals(path, log)
		ask := func() error {
			t.Helper()
			pair, err := pki.NewClient(authority, "rita", pki.Reader, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			signed, err := pair.TLS()
			if err != nil {
				t.Fatal(err)
			}
			renewal, err := pki.NewRenewal(signed, key)
			if err != nil {
				t.Fatal(err)
			}
			before, err := x509.ParseCertificate(renewal.Signature.Certificate)
			if err != nil {
				t.Fatal(err)
			}
			_, err = renewals.Ask(before, renewal, time.Now())
			return err
		}
		for range maxRenewals {
			if err := ask(); err != nil {
				t.Fatal(err)
			}
		}
		if err := ask(); !errors.Is(err, errdefs.ErrResourceExhausted) {
			t.Errorf("one more: got %v", err)
		}
		if got := len(OpenRenewals(path, log).Pending(time.Now())); got != maxRenewals {
			t.Errorf("the next daemon knows %d renewals, want %d", got, maxRenewals)
		}
		time.Sleep(2 * time.Hour)
		if got := renewals.Pending(time.Now()); len(got) != 0 {
			t.Errorf("%d are pending of certificates that expired", len(got))
		}
		if err := ask(); err != nil {
			t.Error(err)
		}
	})
}

// A client that asks with key after key gets to write and to note once a minute; one
// that asks again with its key is not held up, nor one whose request was answered.
func TestRenewalsOfKeyAfterKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		authority, err := pki.NewAuthority("test")
		if err != nil {
			t.Fatal(err)
		}
		pair, err := pki.NewClient(authority, "rita", pki.Reader, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := pair.TLS()
		if err != nil {
			t.Fatal(err)
		}
		pool, err := pki.Pool(authority.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		renewals := OpenRenewals(filepath.Join(t.TempDir(), "renewals.json"), slog.New(slog.DiscardHandler))
		noted := 0
		renewals.Noted = func(reason, _ string) {
			if reason == ReasonRenewalAsked {
				noted++
			}
		}
		another := func() pki.Renewal {
			t.Helper()
			key, err := pki.NewKey()
			if err != nil {
				t.Fatal(err)
			}
			renewal, err := pki.NewRenewal(signed, key)
			if err != nil {
				t.Fatal(err)
			}
			return renewal
		}
		ask := func(renewal pki.Renewal) error {
			_, err := renewals.Ask(signed.Leaf, renewal, time.Now())
			return err
		}
		first := another()
		for range 2 {
			if err := ask(first); err != nil {
				t.Fatal(err)
			}
		}
		if err := ask(another()); !errors.Is(err, errdefs.ErrResourceExhausted) || noted != 1 {
			t.Errorf("another key at once: got %v, %d noted", err, noted)
		}
		time.Sleep(askAgain)
		second := another()
		if err := ask(second); err != nil {
			t.Errorf("a minute later: %v", err)
		}
		certificate, err := pki.Renew(authority, second, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if err := renewals.Answer(pool, pki.Serial(signed.Leaf), string(certificate), "boss", time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := ask(another()); err != nil {
			t.Errorf("after an answer: %v", err)
		}
	})
}
