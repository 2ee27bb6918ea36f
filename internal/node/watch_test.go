package node

import (
	"slices"
	"testing"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/inventory"
	"oscine.dev/oscine/internal/place"
)

// cpus maps a machine on which these CPUs are online.
func cpus(ids ...int) *hardware.Machine {
	m := &hardware.Machine{Online: hardware.NewSet(ids...)}
	for _, id := range ids {
		m.CPUs = append(m.CPUs, hardware.CPU{ID: id, Core: id, Kind: -1, Allowed: true})
	}
	return m
}

// A CPU that goes offline displaces who held it alone, and nobody else.
func TestRenewFollowsTheMachine(t *testing.T) {
	p, s := fourCPUs(t)
	state, err := place.NewState(inventory.Machine(cpus(0, 1, 2, 3), "test"))
	if err != nil {
		t.Fatal(err)
	}
	p.state = state
	objects := map[string][]int{}
	for _, name := range []string{"a", "b"} {
		placed, _, err := p.place(s, exclusive(t, s, name, "interactive", "1"))
		if err != nil {
			t.Fatal(err)
		}
		objects[name] = placed.CPUs
	}
	lost := objects["a"][0]
	left := slices.DeleteFunc([]int{0, 1, 2, 3}, func(id int) bool { return id == lost })
	displaced, err := p.renew(cpus(left...))
	if err != nil {
		t.Fatal(err)
	}
	if len(displaced) != 1 || displaced["workload-a"] == nil {
		t.Fatalf("CPU %d went offline: displaced %v, want workload-a only", lost, displaced)
	}
	again, _, err := p.place(s, exclusive(t, s, "a", "interactive", "1"))
	if err != nil || again.CPUs[0] == lost || again.CPUs[0] == objects["b"][0] {
		t.Errorf("placed anew on %v, %v, want a CPU that is there and free", again, err)
	}
	// With too few CPUs left the new placement is refused.
	if _, err := p.renew(cpus(0)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.place(s, exclusive(t, s, "b", "interactive", "1")); !isUnsatisfied(err) {
		t.Errorf("one CPU is left: got %v, want a refusal", err)
	}
}
