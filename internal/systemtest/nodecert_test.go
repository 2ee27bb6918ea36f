package systemtest

import (
	"context"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"oscine.dev/oscine/internal/cli"
	"oscine.dev/oscine/internal/object"
)

// TestHostedNodeCertificate gives a running node another certificate: calls that are
// under way go on, new ones see it, and so they do after a restart of the daemon.
func TestHostedNodeCertificate(t *testing.T) {
	d := newDaemon(t)
	line := func() string {
		t.Helper()
		for line := range strings.Lines(d.run("info")) {
			if strings.HasPrefix(line, "Certificate") {
				return line
			}
		}
		t.Fatal("info tells of no certificate")
		return ""
	}
	before := line()
	var events lockedBuffer
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() {
		defer close(left)
		env := &cli.Env{In: strings.NewReader(""), Out: &events, Err: &events, Kinds: object.Kinds()}
		env.Run(ctx, []string{"--config", d.config, "events", "--follow"})
	}()
	d.run("config", "certify", "--days", "60")
	after := line()
	if before == after || strings.Contains(after, "expires") {
		t.Errorf("info: got %s after %s", after, before)
	}
	d.awaitWritten("NodeCertificateRenewed", &events)
	leave()
	<-left
	if out := d.run("config", "certify", "--days", "1"); !strings.Contains(out, "has a certificate until") {
		t.Errorf("config certify: got %s", out)
	}
	second := line()
	d.stop(syscall.SIGTERM)
	d.start()
	if got := line(); got != second {
		t.Errorf("after a restart: got %s, want %s", got, second)
	}
	if out := d.run("doctor", "--node"); !regexp.MustCompile(`yes +node certificate +valid until `).MatchString(out) {
		t.Errorf("doctor --node: got %s", out)
	}
	if _, errOut, code := d.try("attest", "--pcr", "11="+strings.Repeat("ab", 32), "--renew"); code == 0 || !strings.Contains(errOut, "no TPM 2.0") {
		t.Errorf("attest --renew without a TPM: exit status %d, %s", code, errOut)
	}
}
