package node

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/object"
)

// A workload that waits for a Secret starts when it comes, starts again when it
// changes, and keeps it from being deleted.
func TestSecretsReachTheirUsers(t *testing.T) {
	h := newHouse(t)
	const canary = "hunter2canary"
	secret := func(spec string) error {
		t.Helper()
		objects, err := h.Kinds().Parse(strings.NewReader("apiVersion: oscine.dev/v1\nkind: Secret\nmetadata: {name: db}\nspec: " + spec + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.Apply(t.Context(), objects, ApplyOptions{})
		return err
	}
	eventually := func(what string, is func() bool) {
		t.Helper()
		for range 500 {
			if is() {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("not in time: %s", what)
	}
	if err := h.apply(t, "web", ", secretEnv: {PASSWORD: db/password}, secrets: [{name: db, path: /run/s}]"); err != nil {
		t.Fatal(err)
	}
	h.await(t, web(), object.Waiting)
	if err := secret("{stringData: {password: " + canary + ", user: rita}}"); err != nil {
		t.Fatal(err)
	}
	h.await(t, web(), object.Running)
	has := func(env, user string) func() bool {
		return func() bool {
			spec := h.box.Running()["workload-web"]
			return slices.Contains(spec.Env, env) && len(spec.Files) == 1 && string(spec.Files[0].Content["user"]) == user
		}
	}
	eventually("it has the values", has("PASSWORD="+canary, "rita"))
	if err := secret("{stringData: {user: otto}, kept: {password: 1}}"); err != nil {
		t.Fatal(err)
	}
	eventually("its file is rewritten", has("PASSWORD="+canary, "otto"))
	if err := secret("{stringData: {password: " + canary + "2}, kept: {user: 1}}"); err != nil {
		t.Fatal(err)
	}
	eventually("its variable is another", has("PASSWORD="+canary+"2", "otto"))
	h.await(t, web(), object.Running)

	if err := h.Delete(t.Context(), object.Key{Kind: object.KindSecret, Name: "db"}); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "Secret/db is used by Workload/web") {
		t.Errorf("a Secret in use: %v", err)
	}
	if err := secret("{kept: {user: 1}}"); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "Workload/web uses its entry password as PASSWORD") {
		t.Errorf("an entry in use: %v", err)
	}
	states, err := h.Get("", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range states {
		manifest, errA := json.Marshal(state.Object)
		status, errB := json.Marshal(state.Status)
		if errA != nil || errB != nil || strings.Contains(string(manifest)+string(status), canary) {
			t.Errorf("%s is shown as %s %s, %v %v", state.Key, manifest, status, errA, errB)
		}
	}
	if err := h.Delete(t.Context(), web()); err != nil {
		t.Fatal(err)
	}
	if err := h.Delete(t.Context(), object.Key{Kind: object.KindSecret, Name: "db"}); err != nil {
		t.Error(err)
	}
}

// Credentials go to their own registry only.
func TestLoginIsForItsServer(t *testing.T) {
	objects, err := object.Kinds().Parse(strings.NewReader(`
apiVersion: oscine.dev/v1
kind: Secret
metadata: {name: hub}
spec: {registry: {server: docker.io, username: rita, password: a}}
---
apiVersion: oscine.dev/v1
kind: Secret
metadata: {name: local}
spec: {registry: {server: "127.0.0.1:5000", username: otto, password: b}}
`))
	if err != nil {
		t.Fatal(err)
	}
	s := secrets{func() []object.Object { return objects }}
	for host, want := range map[string]string{
		"registry-1.docker.io": "rita:a", "127.0.0.1:5000": "otto:b", "127.0.0.1:5001": ":", "evil-docker.io": ":", "ghcr.io": ":",
	} {
		if username, password := s.login(host); username+":"+password != want {
			t.Errorf("%s gets %s:%s, want %s", host, username, password, want)
		}
	}
}
