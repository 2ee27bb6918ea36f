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

func TestMachineHoldsEveryCPUOnce(t *testing.T) {
	m, err := newMachine(130, [][]int{{0, 2, 4}, {1, 3, 3, 999}, {}, {128}})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint16]bool{}
	for i := range m.cpus {
		seen[m.order[i]] = true
	}
	if len(seen) != 130 || m.cpus != 130 || m.domains != 4 {
		t.Errorf("%d of %d CPUs in %d domains", len(seen), m.cpus, m.domains)
	}
	for d := range m.domains {
		for i := range m.size[d] {
			if cpu := m.order[m.first[d]+i]; m.domainOf[cpu] != uint16(d) {
				t.Errorf("CPU %d lies in domain %d and is said to be of %d", cpu, d, m.domainOf[cpu])
			}
		}
	}
	if _, err := newMachine(1025, nil); err == nil {
		t.Error("more CPUs than the program knows were accepted")
	}
}
