package workload

import (
	"slices"
	"strings"
	"testing"
)

// Values implements Secrets.
func (b *bench) Values(name string) (map[string][]byte, bool) {
	values, ok := b.secrets[name]
	return values, ok
}

const canary = "hunter2canary"

// A workload waits for its Secrets, gets them as variables and files, starts
// again for a changed variable and keeps running for a changed file.
func TestWorkloadGetsItsSecrets(t *testing.T) {
	b := newBench(t)
	w := parse(t, ", env: {A: '1'}, secretEnv: {PASSWORD: db/password}, secrets: [{name: tls, path: /run/secrets/tls}]")
	waits := func(want string) {
		t.Helper()
		err := b.c.Up(t.Context(), w)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), canary) {
			t.Errorf("got %v, want %q", err, want)
		}
		if len(b.Running()) != 0 {
			t.Errorf("it runs: %v", b.Running())
		}
	}
	waits("waits for Secret/db, which is not there")
	b.secrets = map[string]map[string][]byte{"db": {"user": []byte(canary)}}
	waits("Secret/db has no entry password")
	b.secrets["db"]["password"] = []byte(canary + "\x00")
	waits("fits no variable")
	b.secrets["db"]["password"] = []byte(canary)
	waits("waits for Secret/tls")
	b.secrets["tls"] = map[string][]byte{"tls.key": []byte("first")}
	up := func() {
		t.Helper()
		if err := b.c.Up(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	up()
	spec := b.Running()["workload-web"]
	if !slices.Equal(spec.Env, []string{"A=1", "PASSWORD=" + canary}) || len(spec.Files) != 1 || spec.Files[0].Target != "/run/secrets/tls" || string(spec.Files[0].Content["tls.key"]) != "first" {
		t.Errorf("container %+v", spec)
	}
	for key, value := range spec.Labels {
		if strings.Contains(key+value, canary) {
			t.Errorf("the label %s=%s shows a value", key, value)
		}
	}
	starts := func() (n int) {
		_, events := b.said()
		for _, e := range events {
			if strings.HasPrefix(e, "Started") {
				n++
			}
		}
		return n
	}
	b.secrets["tls"] = map[string][]byte{"tls.key": []byte("second")}
	up()
	if got := b.Running()["workload-web"]; string(got.Files[0].Content["tls.key"]) != "second" || starts() != 1 {
		t.Errorf("a changed file: %q, %d starts", got.Files, starts())
	}
	b.secrets["db"] = map[string][]byte{"password": []byte("another")}
	up()
	if got := b.Running()["workload-web"]; !slices.Contains(got.Env, "PASSWORD=another") || starts() != 2 {
		t.Errorf("a changed variable: %q, %d starts", got.Env, starts())
	}
	phases, events := b.said()
	if text := strings.Join(append(phases, events...), "\n"); strings.Contains(text, canary) {
		t.Errorf("a value was told:\n%s", text)
	}
}
