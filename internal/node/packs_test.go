package node

import (
	"slices"
	"testing"

	"oscine.dev/oscine/internal/object"
)

// A pack is not taken from what would not start again without it.
func TestUsersOfAPack(t *testing.T) {
	workload := func(name, pack string) object.State {
		w := &object.Workload{}
		w.Spec.Pack = pack
		return object.State{Key: object.Key{Kind: object.KindWorkload, Name: name}, Object: w, Status: &object.WorkloadStatus{}}
	}
	model := func(name, digest string) object.State {
		return object.State{Key: object.Key{Kind: object.KindModel, Name: name}, Object: &object.Model{}, Status: &object.ModelStatus{Pack: digest}}
	}
	others := []object.State{workload("web", ""), workload("other", "other"), model("waits", ""), model("older", "sha256:0")}
	users := []object.State{workload("job", "tool"), model("net", "sha256:1")}
	var got []object.Key
	for _, state := range usersOf("tool", "sha256:1", append(others, users...)) {
		got = append(got, state.Key)
	}
	if want := []object.Key{users[0].Key, users[1].Key}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
