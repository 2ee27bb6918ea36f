package schedext

import (
	"errors"
	"testing"

	"oscine.dev/oscine/internal/bpf"
)

func TestObjectIsWhole(t *testing.T) {
	spec, err := bpf.Read(objects, object)
	if errors.Is(err, bpf.ErrNotBuilt) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"deadlines", "classes", "cpus", "oscine"} {
		if spec.Maps[name] == nil {
			t.Errorf("the object lacks the map %s", name)
		}
	}
	if got := spec.Maps["deadlines"].ValueSize; got != 16 {
		t.Errorf("a slot has %d bytes, want 16", got)
	}
}
