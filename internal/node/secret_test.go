package node_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/node/kind/secret"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
)

// still is the controller of what this test only stores.
type still struct{ tell reconcile.Reporter }

func (s *still) Up(context.Context, object.Object) error {
	s.tell.Phase(object.Running, "")
	return nil
}
func (s *still) Attend(ctx context.Context, _ object.Object) error {
	<-ctx.Done()
	return ctx.Err()
}
func (s *still) Stop(context.Context, object.Object) error { return nil }
func (s *still) Halt(context.Context, object.Object) error { return nil }

func (s *still) Remove(context.Context, object.Object) error { return nil }
func (s *still) Status(seen object.Observed) object.Status {
	return &object.WorkloadStatus{Observed: seen}
}

const canary = "hunter2canary"

// The values of a Secret are shown to nobody, in whatever way it is asked for,
// are kept where what was shown is applied again, and survive the daemon.
func TestSecretsAreNeverShown(t *testing.T) {
	var log bytes.Buffer
	h := newHarnessWith(t, object.Kinds(), slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})), func(kind object.Kind, _ string) reconcile.NewController {
		if kind == object.KindSecret {
			return secret.New
		}
		return func(_ object.Key, r reconcile.Reporter) reconcile.Controller { return &still{r} }
	})
	file := h.write("token", canary+"file")
	h.in = canary + "\n"
	h.says("secret/db created", "secret", "set", "db", "--from-stdin", "password", "--from-file", "token="+file)
	h.says("secret/db updated", "secret", "set", "db", "user="+canary)
	h.says("secret/db unchanged", "secret", "set", "db", "user="+canary)
	h.says("secret/ghcr created", "secret", "set", "ghcr", "--registry", "ghcr.io", "--username", "rita", "--from-stdin", "password")
	h.fails("Secret/ghcr has the credentials for ghcr.io", "secret", "set", "second", "--registry", "ghcr.io", "--username", "otto", "--from-stdin", "password")
	h.fails("argument 1 after the name is not written ENTRY=VALUE", "secret", "set", "db", canary)
	h.fails("this node has no value to keep", "apply", "-f", h.write("kept.yaml", "apiVersion: oscine.dev/v1\nkind: Secret\nmetadata: {name: new}\nspec: {kept: {a: 1}}\n"))
	h.fails("is not base64", "apply", "-f", h.write("bad.yaml", "apiVersion: oscine.dev/v1\nkind: Secret\nmetadata: {name: new}\nspec: {data: {a: "+canary+"}}\n"))
	h.prints(`NAME +TYPE +ENTRY +BYTES\ndb +opaque +password +13\ndb +opaque +token +17\ndb +opaque +user +13\nghcr +registry +password +13\n`, "secret", "list")
	h.prints(`Secret +db +Ready .* opaque +3 +43`, "get", "secrets")
	h.run("config", "credentials", "rita", "--authority", h.dir, "-o", filepath.Join(h.dir, "reader"))
	for _, config := range []string{"config", "reader"} {
		for _, args := range [][]string{
			{"get"}, {"get", "-o", "yaml"}, {"get", "secrets", "-o", "json"}, {"describe", "secret", "db"}, {"describe", "secret", "ghcr"}, {"events"},
		} {
			h.run(append([]string{"--config", filepath.Join(h.dir, config)}, args...)...)
		}
	}
	h.says("secret/db unchanged\nsecret/ghcr unchanged", "apply", "-f", h.write("again.yaml", h.run("get", "secrets", "-o", "yaml")))

	h.restart()
	h.says("secret/db unchanged", "secret", "set", "db", "user="+canary)
	h.says("secret/db deleted", "secret", "rm", "db")

	for name, text := range map[string]string{"what commands print": h.printed.String(), "the log": log.String()} {
		if strings.Contains(text, canary) {
			t.Errorf("a value is in %s:\n%s", name, text)
		}
	}
	if info, err := os.Stat(filepath.Join(h.dir, "state", "state.db")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the store: %v, %v", info.Mode(), err)
	}
	logs, err := filepath.Glob(filepath.Join(h.dir, "state", "log", "*"))
	if err != nil || len(logs) == 0 {
		t.Errorf("the node's logs: %q, %v", logs, err)
	}
	for _, path := range logs {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && strings.Contains(h.read(path), canary) {
			t.Errorf("a value is in %s", path)
		}
	}
}
