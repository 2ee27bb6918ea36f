package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"oscine.dev/oscine/internal/node/access"
	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/oip"
)

// Workloads reach the models over a socket that others on the host do not find.
func TestInferenceSocket(t *testing.T) {
	run, err := os.MkdirTemp("", "oscine-") // short: sockets lie below
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	n := &Node{config: Config{RunDir: run}, log: slog.New(slog.DiscardHandler)}
	n.life, n.end = context.WithCancel(t.Context())
	if n.tokens, err = access.OpenTokens(filepath.Join(run, "tokens.json")); err != nil {
		t.Fatal(err)
	}
	n.inference = access.NewFair().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%T of %s over HTTP/%d", core.GuardOf(r.Context()), core.ClientOf(r.Context()), r.ProtoMajor)
	}))
	for range 2 { // the second daemon finds the socket of the first
		if err := n.serveSocket(); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(n.inferenceDir(), "inference.sock")
	for file, want := range map[string]os.FileMode{filepath.Join(run, "inference"): 0o700, n.inferenceDir(): 0o755, path: 0o666} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", file, info, err, want)
		}
	}
	for version := 1; version <= 2; version++ {
		client := oip.Unix(path)
		transport := client.HTTP.Transport.(*http.Transport)
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetHTTP1(version == 1)
		transport.Protocols.SetUnencryptedHTTP2(version == 2)
		answer, err := client.InferJSON(t.Context(), "m", []byte("{}"))
		if want := fmt.Sprintf("*access.turn of user %d over HTTP/%d", os.Getuid(), version); err != nil || string(answer) != want {
			t.Errorf("got %q, %v, want %q", answer, err, want)
		}
		client.HTTP.CloseIdleConnections()
	}
	n.end()
	n.wg.Wait()
}
