package node

import (
	"testing"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
)

// A pack is not taken from what would not start again without it.
func TestUserOfAPack(t *testing.T) {
	p := &pack.Info{Manifest: pack.Manifest{Name: "tool"}, Digest: "sha256:1"}
	workload := func(name, pack string) object.State {
		w := &object.Workload{}
		w.Spec.Pack = pack
		return object.State{Key: object.Key{Kind: object.KindWorkload, Name: name}, Object: w, Status: &object.WorkloadStatus{}}
	}
	model := func(name, digest string) object.State {
		return object.State{Key: object.Key{Kind: object.KindModel, Name: name}, Object: &object.Model{}, Status: &object.ModelStatus{Pack: digest}}
	}
	others := []object.State{workload("web", ""), workload("other", "other"), model("waits", ""), model("older", "sha256:0")}
	if got, ok := userOf(p, others); ok {
		t.Errorf("got %s, want none", got)
	}
	for _, user := range []object.State{workload("job", "tool"), model("net", "sha256:1")} {
		if got, ok := userOf(p, append(others, user)); !ok || got != user.Key {
			t.Errorf("got %s, want %s", got, user.Key)
		}
	}
}
