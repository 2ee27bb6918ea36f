package access

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestListOutlivesTheDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "revoked.json")
	open := func() *List {
		t.Helper()
		l, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	var noted []string
	l.Noted = func(reason, message string) { noted = append(noted, reason+": "+message) }
	first := Revocation{Serial: "aa", Name: "rita", By: "admin", At: time.Unix(100, 0).UTC()}
	second := Revocation{Serial: "11", By: "admin", At: time.Unix(200, 0).UTC()}
	if err := l.Revoke([]Revocation{second, first}); err != nil {
		t.Fatal(err)
	}
	if err := l.Revoke([]Revocation{{Serial: "aa", By: "another"}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Revocation{first, second}, open().All()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if err := l.Restore([]string{"aa", "bb"}, "boss"); !errors.Is(err, ErrNotRevoked) {
		t.Errorf("restore what is not listed: %v", err)
	}
	if err := l.Restore([]string{"11"}, "boss"); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{
		`CertificateRevoked: certificate 11 revoked by "admin"`,
		`CertificateRevoked: certificate aa of "rita" revoked by "admin"`,
		`CertificateRestored: certificate 11 restored by "boss"`,
	}, noted); diff != "" {
		t.Errorf("what was noted (-want +got)\n%s", diff)
	}
	if l = open(); !l.Revoked("aa") || l.Revoked("bb") {
		t.Error("a refused restore changed the list")
	}
	if err := l.Restore([]string{"aa"}, "boss"); err != nil || open().Revoked("aa") {
		t.Errorf("restore: %v", err)
	}
	if err := l.Revoke([]Revocation{{Serial: "cc", Name: strings.Repeat("x", maxName+1)}}); err == nil {
		t.Error("a name without bound was taken")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
}

// A list that cannot be read does not let revoked clients in.
func TestDamagedListIsNoEmptyList(t *testing.T) {
	path := filepath.Join(t.TempDir(), "revoked.json")
	if err := os.WriteFile(path, []byte(`[{"serial":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "revoke them again") {
		t.Errorf("got %v", err)
	}
}
