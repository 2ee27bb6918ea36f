package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/api"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pki"
)

// person runs commands with a client configuration of their own.
func person(t *testing.T) (run func(in string, args ...string) (code int, out, errOut string)) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "config")
	return func(in string, args ...string) (int, string, string) {
		var out, errOut bytes.Buffer
		code := Run(append([]string{"--config", config}, args...), strings.NewReader(in), &out, &errOut)
		return code, out.String(), errOut.String()
	}
}

// waitingNode is a node in maintenance mode; stored is what it was given.
func waitingNode(t *testing.T, options ...func(*api.Maintenance)) (m *api.Maintenance, address string, stored chan string) {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	stored = make(chan string, 1)
	m = &api.Maintenance{Key: key, Logger: slog.New(slog.DiscardHandler), Store: func(text string) error { stored <- text; return nil }}
	for _, option := range options {
		option(m)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Fingerprint(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go func() { _, _ = m.Serve(ctx, l) }()
	return m, l.Addr().String(), stored
}

func TestConfigApply(t *testing.T) {
	run := person(t)
	dir := t.TempDir()
	if code, _, said := run("", "config", "generate", "edge1", "-o", dir, "--host", "192.0.2.9", "--host", "edge1.example"); code != 0 {
		t.Fatal(said)
	}
	file := filepath.Join(dir, "edge1.yaml")
	m, address, stored := waitingNode(t)
	fingerprint, err := m.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"nobody to ask":         {nil, "shows the fingerprint " + fingerprint + ": compare it with the node's console"},
		"another machine":       {[]string{"--fingerprint", strings.Repeat("ab", 32)}, "this is another machine, or someone is in between"},
		"another authority":     {[]string{"--insecure-skip-fingerprint", "--authority", t.TempDir()}, "say where oscine config generate put ca.crt"},
		"two answers":           {[]string{"--insecure-skip-fingerprint", "--fingerprint", "ab"}, "exclude each other"},
		"a manifest that lacks": {[]string{"-f", writeTemp(t, "kind: Machine\n"), "--authority", dir, "--fingerprint", fingerprint}, "apiVersion"},
	} {
		code, _, said := run("", append([]string{"config", "apply", "-f", file, "--address", address}, c.args...)...)
		if code == 0 || !strings.Contains(said, c.want) {
			t.Errorf("%s: exit status %d, %q, want one with %q", name, code, said, c.want)
		}
	}
	if len(stored) > 0 {
		t.Fatal("the node was configured on the way")
	}
	upper := strings.ToUpper(fingerprint[:2]) + ":" + fingerprint[2:]
	if code, out, said := run("", "config", "apply", "-f", file, "--address", address, "--fingerprint", upper); code != 0 || !strings.Contains(out, "configured") {
		t.Fatalf("exit status %d, %s%s", code, out, said)
	}
	checkStored(t, <-stored, m.Key)
}

// checkStored: the node has a certificate for its own key and for the names
// that were asked for, and was sent no key.
func checkStored(t *testing.T, text string, key []byte) {
	t.Helper()
	machine, err := object.ParseMachine(strings.NewReader(text))
	if err != nil || strings.Contains(text, "PRIVATE KEY") {
		t.Fatalf("%v:\n%s", err, text)
	}
	pair, err := tls.X509KeyPair([]byte(machine.Spec.API.Certificate), key)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"edge1", "edge1.example", "192.0.2.9", "127.0.0.1"} {
		if err := pair.Leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
}

func writeTemp(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "machine.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// A short certificate is for nodes that a TPM can attest, or nobody could renew it.
func TestConfigApplyForAShortTime(t *testing.T) {
	run := person(t)
	dir := t.TempDir()
	if code, _, said := run("", "config", "generate", "edge1", "-o", dir); code != 0 {
		t.Fatal(said)
	}
	apply := func(m *api.Maintenance, address, valid string) (int, string, string) {
		t.Helper()
		fingerprint, err := m.Fingerprint()
		if err != nil {
			t.Fatal(err)
		}
		return run("", "config", "apply", "-f", filepath.Join(dir, "edge1.yaml"), "--address", address, "--fingerprint", fingerprint, "--valid", valid)
	}
	m, address, stored := waitingNode(t)
	if code, _, said := apply(m, address, "24h"); code == 0 || !strings.Contains(said, "has no TPM 2.0") {
		t.Errorf("without a TPM: exit status %d, %q", code, said)
	}
	if code, _, said := apply(m, address, "1s"); code == 0 || !strings.Contains(said, "--valid 1s: must be from 10m0s to 10 years, such as 24h") {
		t.Errorf("for a second: exit status %d, %q", code, said)
	}
	if len(stored) > 0 {
		t.Fatal("the node was configured on the way")
	}
	m, address, stored = waitingNode(t, func(m *api.Maintenance) { m.TPM = true })
	if code, out, said := apply(m, address, "24h"); code != 0 || !strings.Contains(out, "renew it before with oscine attest edge1 --renew") {
		t.Fatalf("exit status %d, %s%s", code, out, said)
	}
	machine, err := object.ParseMachine(strings.NewReader(<-stored))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(machine.Spec.API.Certificate), m.Key)
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(pair.Leaf.NotAfter); left > 24*time.Hour || left < 23*time.Hour {
		t.Errorf("the certificate is valid for %s", left)
	}
}

// TestConfigApplyByHand takes a manifest without any certificate.
func TestConfigApplyByHand(t *testing.T) {
	run := person(t)
	dir := t.TempDir()
	if code, _, said := run("", "config", "generate", "other", "-o", dir); code != 0 {
		t.Fatal(said)
	}
	m, address, stored := waitingNode(t)
	text := "apiVersion: oscine.dev/v1\nkind: Machine\nmetadata:\n  name: edge1 # by the door\n"
	code, _, said := run(text, "config", "apply", "-f", "-", "--authority", dir, "--address", address, "--insecure-skip-fingerprint")
	if code != 0 || !strings.Contains(said, "was not compared") {
		t.Fatalf("exit status %d: %s", code, said)
	}
	got := <-stored
	machine, err := object.ParseMachine(strings.NewReader(got))
	if err != nil || !strings.Contains(got, "# by the door") {
		t.Fatalf("%v:\n%s", err, got)
	}
	if _, err := tls.X509KeyPair([]byte(machine.Spec.API.Certificate), m.Key); err != nil {
		t.Error(err)
	}
	if code, _, said := run(text+"---\nkind: Model\n", "config", "apply", "-f", "-", "--authority", dir, "--address", address, "--insecure-skip-fingerprint"); code == 0 || !strings.Contains(said, "one Machine and nothing else") {
		t.Errorf("two objects: exit status %d, %s", code, said)
	}
}

// A node that shows that it has the manifest is recognised without its console;
// one that does not is not. Neither the manifest nor what is sent holds a key or,
// once it has served, the token.
func TestConfigApplyToJoiningNode(t *testing.T) {
	run := person(t)
	dir := t.TempDir()
	if code, _, said := run("", "config", "generate", "edge1", "-o", dir, "--host", "edge1.example"); code != 0 {
		t.Fatal(said)
	}
	file := filepath.Join(dir, "edge1.yaml")
	raw, err := os.ReadFile(file)
	if err != nil || bytes.Contains(raw, []byte("PRIVATE KEY")) {
		t.Fatalf("%v, a key lies in\n%s", err, raw)
	}
	machine, err := object.ParseMachine(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	m, address, stored := waitingNode(t)
	m.Token = "the token of another manifest"
	if code, _, said := run("", "config", "apply", "-f", file, "--address", address); code == 0 || !strings.Contains(said, "compare it with the node's console") {
		t.Errorf("a machine with another token: exit status %d, %s", code, said)
	}
	m.Token = machine.Spec.API.JoinToken
	if code, _, said := run("", "config", "apply", "-f", file, "--address", address, "--fingerprint", strings.Repeat("ab", 32)); code == 0 {
		t.Errorf("another fingerprint than the one given: %s", said)
	}
	if code, _, said := run("", "config", "apply", "-f", file, "--address", address); code != 0 || !strings.Contains(said, "the node knows the join token") {
		t.Fatalf("exit status %d, %s", code, said)
	}
	sent := <-stored
	configured, err := object.ParseMachine(strings.NewReader(sent))
	if err != nil || strings.Contains(sent, "PRIVATE KEY") || configured.Spec.API.JoinToken != "" {
		t.Errorf("%v, sent\n%s", err, sent)
	}
	if pair, err := tls.X509KeyPair([]byte(configured.Spec.API.Certificate), m.Key); err != nil || pair.Leaf.VerifyHostname("edge1.example") != nil {
		t.Errorf("the certificate is not for the node: %v", err)
	}
}

// A machine of this computer gets a key from it; one that nobody can sign for is
// refused.
func TestLocalMachineGetsAnIdentity(t *testing.T) {
	run := person(t)
	dir := t.TempDir()
	if code, _, said := run("", "config", "generate", "edge1", "-o", dir); code != 0 {
		t.Fatal(said)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "edge1.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	complete, err := withLocalIdentity(raw, dir)
	if err != nil {
		t.Fatal(err)
	}
	machine, err := object.ParseMachine(bytes.NewReader(complete))
	if err != nil || machine.Spec.API.Key == "" || machine.Spec.API.JoinToken != "" {
		t.Errorf("%v\n%s", err, complete)
	}
	if same, err := withLocalIdentity(complete, t.TempDir()); err != nil || !bytes.Equal(same, complete) {
		t.Errorf("one with an identity: %v", err)
	}
	if _, err := withLocalIdentity(raw, t.TempDir()); err == nil || !strings.Contains(err.Error(), "nobody can sign one") {
		t.Errorf("without the authority: %v", err)
	}
}

// TestConfigApplyToConfiguredNode says so.
func TestConfigApplyToConfiguredNode(t *testing.T) {
	run := person(t)
	dir := t.TempDir()
	if code, _, said := run("", "config", "generate", "edge1", "-o", dir, "--with-key"); code != 0 {
		t.Fatal(said)
	}
	file := filepath.Join(dir, "edge1.yaml")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	machine, err := object.ParseMachine(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(machine.Spec.API.Certificate), []byte(machine.Spec.API.Key))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	code, _, said := run("", "config", "apply", "-f", file, "--address", server.Listener.Addr().String())
	if want := `the node is configured already: it is "edge1" of "edge1 authority"`; code == 0 || !strings.Contains(said, want) {
		t.Errorf("exit status %d, %q, want one with %q", code, said, want)
	}
}

func TestConfirmFingerprint(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, "Yes": true, "\n": false, "": false, "no\n": false, "yess\n": false} {
		var said bytes.Buffer
		env := &Env{In: strings.NewReader(answer), Err: &said}
		if err := confirmFingerprint(env, "192.0.2.7:7443", "ab12"); (err == nil) != want || !strings.Contains(said.String(), "ab12") {
			t.Errorf("%q: got %v, asked %q", answer, err, said.String())
		}
	}
}
