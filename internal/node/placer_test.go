package node

import (
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/place"
)

// fourCPUs is a placer of a machine with four alike CPUs, the first kept for
// the system, and its store.
func fourCPUs(t *testing.T) (*placer, *store) {
	t.Helper()
	m := &place.Machine{Name: "test", NUMA: []place.NUMANode{{ID: 0, Memory: 1 << 30}}}
	for id := range 4 {
		m.CPUs = append(m.CPUs, place.CPU{ID: id, Core: id, Reserved: id == 0})
	}
	state, err := place.NewState(m)
	if err != nil {
		t.Fatal(err)
	}
	s, err := openStore(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	return &placer{log: slog.New(slog.DiscardHandler), state: state}, s
}

func exclusive(t *testing.T, s *store, name, class, cpus string) object.Object {
	t.Helper()
	obj := parse(t, "apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: "+name+"}\nspec: {image: x, class: "+class+", resources: {cpu: '"+cpus+"', cpuPolicy: exclusive}}\n")
	if err := s.put([]object.Object{obj}); err != nil {
		t.Fatal(err)
	}
	return obj
}

func TestPlacementIsKept(t *testing.T) {
	p, s := fourCPUs(t)
	obj := exclusive(t, s, "a", "interactive", "2")
	first, _, err := p.place(s, obj)
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := p.place(s, obj)
	if err != nil || !slices.Equal(first.CPUs, again.CPUs) {
		t.Errorf("placed on %v, again on %v, %v", first.CPUs, again.CPUs, err)
	}
	// A new daemon adopts what is stored.
	records, err := s.all()
	if err != nil {
		t.Fatal(err)
	}
	next, _ := fourCPUs(t)
	next.adopt(records[0])
	adopted, _, err := next.place(s, obj)
	if err != nil || !slices.Equal(first.CPUs, adopted.CPUs) {
		t.Errorf("placed on %v, adopted on %v, %v", first.CPUs, adopted.CPUs, err)
	}
}

func TestBatchYields(t *testing.T) {
	p, s := fourCPUs(t)
	if _, _, err := p.place(s, exclusive(t, s, "slow", "batch", "2")); err != nil {
		t.Fatal(err)
	}
	quick := exclusive(t, s, "quick", "interactive", "3")
	placed, displaced, err := p.place(s, quick)
	if err != nil {
		t.Fatal(err)
	}
	if got := displaced["workload-slow"]; len(placed.CPUs) != 3 || got == nil || !strings.Contains(got.Error(), "workload-quick") {
		t.Errorf("got CPUs %v and displaced %v, want three CPUs and the batch workload displaced", placed.CPUs, displaced)
	}
	// What batch cannot take it is refused, with the reason.
	_, _, err = p.place(s, exclusive(t, s, "slow", "batch", "2"))
	var refusal *place.Unsatisfied
	if !errors.As(err, &refusal) || !strings.Contains(err.Error(), "cpu") {
		t.Errorf("got %v, want a refusal that names the CPUs", err)
	}
	// Its own class does not displace it.
	if _, displaced, err := p.place(s, exclusive(t, s, "other", "interactive", "1")); err == nil || displaced != nil {
		t.Errorf("got %v, %v, want a refusal that displaces nobody", displaced, err)
	}
}

func TestGangIsPlacedTogetherOrNotAtAll(t *testing.T) {
	p, s := fourCPUs(t)
	member := func(name, cpus string) object.Object {
		obj := parse(t, "apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: "+name+"}\nspec: {image: x, resources: {cpu: '"+cpus+"', cpuPolicy: exclusive, gang: {name: g, size: 2}}}\n")
		if err := s.put([]object.Object{obj}); err != nil {
			t.Fatal(err)
		}
		return obj
	}
	one := member("one", "2")
	if _, _, err := p.place(s, one); err == nil || !strings.Contains(err.Error(), "gang g: 1 of 2 members are applied") {
		t.Errorf("a lone member: got %v, want it to wait for the other", err)
	}
	two := member("two", "2")
	if _, _, err := p.place(s, two); !isUnsatisfied(err) {
		t.Errorf("2 + 2 exclusive CPUs of 3: got %v, want a refusal", err)
	}
	if left := p.state.Placements(); len(left) != 0 {
		t.Errorf("a refused gang left %v", left)
	}
	two = member("two", "1")
	first, _, err := p.place(s, one)
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := p.place(s, two)
	if err != nil {
		t.Fatal(err)
	}
	if len(first.CPUs) != 2 || len(second.CPUs) != 1 || slices.Contains(first.CPUs, second.CPUs[0]) {
		t.Errorf("got CPUs %v and %v, want two and another one", first.CPUs, second.CPUs)
	}
}
