package systemtest

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestHostedCertificates renews a reader's certificate through a node that restarts
// in between, and revokes both.
func TestHostedCertificates(t *testing.T) {
	d := newDaemon(t)
	config := filepath.Join(d.dir, "sam.config")
	d.run("config", "credentials", "sam", "--role", "reader", "--days", "2", "-o", config)
	sam := func(args ...string) string {
		t.Helper()
		out, errOut, code := d.tryWith(config, "", args...)
		if code != 0 {
			t.Fatalf("oscine %v: exit status %d: %s", args, code, errOut)
		}
		return out + errOut
	}
	restart := func() {
		t.Helper()
		d.stop(syscall.SIGTERM)
		d.start()
		d.run("info")
	}
	if said := sam("info"); strings.Contains(said, "renew") {
		t.Errorf("a fresh certificate: %s", said)
	}
	if said := sam("config", "renew"); !strings.Contains(said, `oscine config approve "sam"`) {
		t.Errorf("config renew: got %s", said)
	}
	restart()
	if out := d.run("config", "certificates"); !strings.Contains(out, "valid, renewal asked ") {
		t.Errorf("config certificates: got %s", out)
	}
	if out := d.run("config", "approve", "sam"); !strings.Contains(out, "sam with role reader renewed until ") {
		t.Errorf("config approve: got %s", out)
	}
	restart()
	if said := sam("info"); !strings.Contains(said, "was to expire on ") {
		t.Errorf("the next command: got %s", said)
	}
	sam("get")
	if out := d.run("config", "revoke", "sam"); strings.Count(out, "sam revoked") != 2 {
		t.Errorf("config revoke: got %s", out)
	}
	restart()
	if _, errOut, code := d.tryWith(config, "", "info"); code == 0 || !strings.Contains(errOut, "revoked") {
		t.Errorf("the renewed and revoked certificate: exit status %d, %s", code, errOut)
	}
	events := d.run("events")
	for _, want := range []string{"RenewalAsked", "CertificateRenewed", "CertificateRevoked"} {
		if !strings.Contains(events, want) {
			t.Errorf("events lack %s: %s", want, events)
		}
	}
}
