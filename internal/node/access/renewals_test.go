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
