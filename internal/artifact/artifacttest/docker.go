package artifacttest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"oscine.dev/oscine/internal/debian"
)

// StartDocker starts Docker's registry (the distribution project's) on this machine,
// for a user "rita" with a password where one is given. It ends with the test, which is skipped
// where the registry cannot be had.
func StartDocker(t testing.TB, password string) (host string) {
	t.Helper()
	tool, err := debian.FindTool(t.Context(), debian.Registry)
	if err != nil {
		t.Skipf("needs Docker's registry: %v", err)
	}
	dir := t.TempDir()
	host = freeAddress(t)
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", dir, host)
	if password != "" {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		users := filepath.Join(dir, "users")
		if err := errors.Join(err, os.WriteFile(users, fmt.Appendf(nil, "rita:%s\n", hash), 0o600)); err != nil {
			t.Fatal(err)
		}
		config += fmt.Sprintf("auth: {htpasswd: {realm: test, path: %s}}\n", users)
	}
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	cmd := tool.Command(ctx, "serve", file)
	cmd.Env = append(cmd.Env, "OTEL_TRACES_EXPORTER=none")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // it was killed
		_ = log.Close()
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get("http://" + host + "/v2/")
		if err == nil {
			_ = resp.Body.Close()
			return host
		}
		if time.Now().After(deadline) {
			said, _ := os.ReadFile(log.Name())
			t.Fatalf("Docker's registry does not answer: %v\n%s", err, said)
		}
	}
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
