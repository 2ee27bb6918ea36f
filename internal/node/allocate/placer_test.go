package allocate

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/hardware/hardwaretest"
	"oscine.dev/oscine/internal/inventory"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/place"
)

// memory is a Store in memory. It fails as often as failing says.
type memory struct {
	objects []object.Object
	placed  map[string]json.RawMessage // by name
	failing error
}

func (m *memory) Objects() ([]object.Object, error) { return m.objects, nil }

func (m *memory) SetPlacements(placed []Placed) error {
	if m.failing != nil {
		return m.failing
	}
	for _, p := range placed {
		raw, err := json.Marshal(p.Placement)
		if err != nil {
			return err
		}
		m.placed[p.Object.Key().ID()] = raw
	}
	return nil
}

func (m *memory) ForgetPlacement(obj object.Object) error {
	delete(m.placed, obj.Key().ID())
	return m.failing
}

// put stores an object in place of an earlier one of its name.
func (m *memory) put(t *testing.T, text string) object.Object {
	t.Helper()
	objects, err := object.Kinds().Parse(strings.NewReader(text))
	if err != nil || len(objects) != 1 {
		t.Fatalf("%d objects, %v, in %s", len(objects), err, text)
	}
	m.objects = slices.DeleteFunc(m.objects, func(o object.Object) bool { return o.Key().ID() == objects[0].Key().ID() })
	m.objects = append(m.objects, objects[0])
	return objects[0]
}

// exclusive stores a workload that wants CPUs of its own.
func (m *memory) exclusive(t *testing.T, name, class, cpus string) object.Object {
	t.Helper()
	return m.put(t, "apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: "+name+"}\nspec: {image: x, class: "+class+", resources: {cpu: '"+cpus+"', cpuPolicy: exclusive}}\n")
}

// member stores a member of a gang of two.
func (m *memory) member(t *testing.T, name, cpus string) object.Object {
	t.Helper()
	return m.put(t, "apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: "+name+"}\nspec: {image: x, resources: {cpu: '"+cpus+"', cpuPolicy: exclusive, gang: {name: g, size: 2}}}\n")
}

// online maps a machine on which these CPUs are online.
func online(ids ...int) *hardware.Machine {
	m := &hardware.Machine{Online: hardware.NewSet(ids...)}
	for _, id := range ids {
		m.CPUs = append(m.CPUs, hardware.CPU{ID: id, Core: id, Kind: -1, Allowed: true})
	}
	return m
}

// fourCPUs is a placer of a machine with four alike CPUs, the first kept for
// the system, and its store.
func fourCPUs(t *testing.T) (*Placer, *memory) {
	t.Helper()
	m := &place.Machine{Name: "test", NUMA: []place.NUMANode{{ID: 0, Memory: 1 << 30}}}
	for id := range 4 {
		m.CPUs = append(m.CPUs, place.CPU{ID: id, Core: id, Reserved: id == 0})
	}
	state, err := place.NewState(m)
	if err != nil {
		t.Fatal(err)
	}
	return newPlacer(slog.New(slog.DiscardHandler), state, nil), &memory{placed: map[string]json.RawMessage{}}
}

func (p *Placer) mustPlace(t *testing.T, s Store, obj object.Object) *Placement {
	t.Helper()
	placed, _, err := p.Place(t.Context(), s, obj)
	if err != nil {
		t.Fatal(err)
	}
	return placed
}

func TestPlacementIsKept(t *testing.T) {
	p, s := fourCPUs(t)
	obj := s.exclusive(t, "a", "interactive", "2")
	first := p.mustPlace(t, s, obj)
	again, _, err := p.Place(t.Context(), s, obj)
	if err != nil || !slices.Equal(first.CPUs, again.CPUs) {
		t.Errorf("placed on %v, again on %v, %v", first.CPUs, again.CPUs, err)
	}
	// A new daemon adopts what is stored, and only under its own name.
	next, _ := fourCPUs(t)
	next.Adopt(s.exclusive(t, "b", "interactive", "2"), s.placed["workload-a"])
	next.Adopt(obj, json.RawMessage(`{"request":`))
	next.Adopt(obj, nil)
	if held := next.state.Load().Placements(); len(held) != 0 {
		t.Errorf("adopted %v from records that say nothing", held)
	}
	next.Adopt(obj, s.placed["workload-a"])
	adopted, _, err := next.Place(t.Context(), s, obj)
	if err != nil || !slices.Equal(first.CPUs, adopted.CPUs) {
		t.Errorf("placed on %v, adopted on %v, %v", first.CPUs, adopted.CPUs, err)
	}
	if st := adopted.Status(); st.CPUs != place.FormatCPUs(first.CPUs) || !st.Exclusive {
		t.Errorf("shown as %+v", st)
	}
	if !next.Release("workload-a") || next.Release("workload-a") {
		t.Error("a placement is not released once")
	}
}

func TestBatchYields(t *testing.T) {
	p, s := fourCPUs(t)
	p.mustPlace(t, s, s.exclusive(t, "slow", "batch", "2"))
	placed, displaced, err := p.Place(t.Context(), s, s.exclusive(t, "quick", "interactive", "3"))
	if err != nil {
		t.Fatal(err)
	}
	if got := displaced["workload-slow"]; len(placed.CPUs) != 3 || got == nil || !strings.Contains(got.Error(), "workload-quick") {
		t.Errorf("got CPUs %v and displaced %v, want three CPUs and the batch workload displaced", placed.CPUs, displaced)
	}
	// What batch cannot take it is refused, with the reason.
	_, _, err = p.Place(t.Context(), s, s.exclusive(t, "slow", "batch", "2"))
	if !Unsatisfied(err) || !strings.Contains(err.Error(), "cpu") {
		t.Errorf("got %v, want a refusal that names the CPUs", err)
	}
	// Its own class does not displace it.
	if _, displaced, err := p.Place(t.Context(), s, s.exclusive(t, "other", "interactive", "1")); err == nil || displaced != nil {
		t.Errorf("got %v, %v, want a refusal that displaces nobody", displaced, err)
	}
}

// Nobody loses a place to a placement that then fails.
func TestFailedPlacementDisplacesNobody(t *testing.T) {
	p, s := fourCPUs(t)
	slow := p.mustPlace(t, s, s.exclusive(t, "slow", "batch", "1"))
	s.failing = errors.New("disk full")
	quick := s.exclusive(t, "quick", "interactive", "3")
	placed, displaced, err := p.Place(t.Context(), s, quick)
	if !errors.Is(err, s.failing) || placed != nil || displaced != nil {
		t.Errorf("got %v, displaced %v, %v, want the store's error and nobody displaced", placed, displaced, err)
	}
	if now, ok := p.state.Load().Placement("workload-slow"); !ok || !slices.Equal(now.CPUs, slow.CPUs) {
		t.Errorf("slow had %v and has %v, %v", slow.CPUs, now.CPUs, ok)
	}
	if _, ok := p.state.Load().Placement("workload-quick"); ok {
		t.Error("a placement that was not stored is held")
	}
	// The same for one's own change, and for a gang.
	if _, _, err := p.Place(t.Context(), s, s.exclusive(t, "slow", "batch", "2")); err == nil {
		t.Error("placed without being stored")
	}
	if now, _ := p.state.Load().Placement("workload-slow"); len(now.CPUs) != 1 {
		t.Errorf("after a failed change slow has %v", now.CPUs)
	}
	s.member(t, "one", "1")
	if _, _, err := p.Place(t.Context(), s, s.member(t, "two", "1")); !errors.Is(err, s.failing) || len(p.state.Load().Placements()) != 1 {
		t.Errorf("a gang that is not stored: %v, held %v", err, p.state.Load().Placements())
	}
	s.failing = nil
	if _, displaced, err := p.Place(t.Context(), s, quick); err != nil || displaced["workload-slow"] == nil {
		t.Errorf("the store works again: displaced %v, %v", displaced, err)
	}
	if _, _, err := p.Place(t.Context(), s, &object.Machine{}); !errors.Is(err, ErrNotPlaced) {
		t.Errorf("a Machine: got %v, want ErrNotPlaced", err)
	}
}

// What has finished gives its CPUs to others, and takes part again when it is
// placed again.
func TestFinishedWorkYields(t *testing.T) {
	p, s := fourCPUs(t)
	done := s.exclusive(t, "done", "interactive", "3")
	p.mustPlace(t, s, done)
	next := s.exclusive(t, "next", "interactive", "3")
	if _, _, err := p.Place(t.Context(), s, next); !Unsatisfied(err) {
		t.Fatalf("six of three CPUs: %v", err)
	}
	if had, err := p.Yield(s, done); !had || err != nil || s.placed["workload-done"] != nil {
		t.Errorf("yielded %v, %v, stored %s", had, err, s.placed["workload-done"])
	}
	if had, err := p.Yield(s, done); had || err != nil {
		t.Errorf("yielded again: %v, %v", had, err)
	}
	p.mustPlace(t, s, next)
	if _, _, err := p.Place(t.Context(), s, done); !Unsatisfied(err) {
		t.Errorf("its place is taken: %v", err)
	}
}

func TestLentIsNobodyElses(t *testing.T) {
	p, s := fourCPUs(t)
	req := place.Request{Name: "bench", Class: place.Realtime, MilliCPU: 1000, Exclusive: true, WholeCore: true}
	first, err := p.Lend(t.Context(), req)
	if err != nil || len(first.CPUs) != 1 {
		t.Fatalf("lent %v, %v", first.CPUs, err)
	}
	three := s.exclusive(t, "three", "realtime", "3")
	if _, _, err := p.Place(t.Context(), s, three); !Unsatisfied(err) {
		t.Errorf("three of three CPUs, one of them lent: got %v, want Unsatisfied", err)
	}
	p.Release("bench")
	p.mustPlace(t, s, three)
	if _, err := p.Lend(t.Context(), req); !Unsatisfied(err) {
		t.Errorf("without a free CPU: got %v, want Unsatisfied", err)
	}
}

// The CPUs of those that share change as others come.
func TestSharedCPUsAreShownAsTheyAre(t *testing.T) {
	p, s := fourCPUs(t)
	shared := p.mustPlace(t, s, s.put(t, "apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: shared}\nspec: {image: x, resources: {cpu: '1'}}\n"))
	p.mustPlace(t, s, s.exclusive(t, "own", "interactive", "1"))
	var got []string
	for name, cpus := range p.Shared() {
		got = append(got, fmt.Sprint(name, len(cpus)))
	}
	if want := []string{fmt.Sprint("workload-shared", len(shared.CPUs)-1)}; !slices.Equal(got, want) {
		t.Errorf("shared: %v, want %v", got, want)
	}
	if now := p.Now("workload-shared", shared.Status()); now.CPUs == shared.Status().CPUs {
		t.Errorf("still shown on %s", now.CPUs)
	}
	if now := p.Now("workload-gone", shared.Status()); now.CPUs != shared.Status().CPUs || p.Now("workload-shared", nil) != nil {
		t.Error("what is not placed is shown otherwise")
	}
}

// Who looks at a placement does not wait for one that is under way.
func TestReadersDoNotWait(t *testing.T) {
	p, s := fourCPUs(t)
	shared := p.mustPlace(t, s, s.put(t, "apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: shared}\nspec: {image: x, resources: {cpu: '1'}}\n"))
	p.mu.Lock() // as a long search does
	defer p.mu.Unlock()
	if now := p.Now("workload-shared", shared.Status()); now.CPUs != shared.Status().CPUs {
		t.Errorf("shown on %s", now.CPUs)
	}
}

// A CPU that goes offline displaces its exclusive holder, and nothing else.
func TestRenewFollowsTheMachine(t *testing.T) {
	s := &memory{placed: map[string]json.RawMessage{}}
	p, err := NewPlacer(online(0, 1, 2, 3), "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	objects := map[string][]int{}
	for _, name := range []string{"a", "b"} {
		objects[name] = p.mustPlace(t, s, s.exclusive(t, name, "interactive", "1")).CPUs
	}
	lost := objects["a"][0]
	left := slices.DeleteFunc([]int{0, 1, 2, 3}, func(id int) bool { return id == lost })
	displaced, err := p.Renew(online(left...))
	if err != nil {
		t.Fatal(err)
	}
	if len(displaced) != 1 || displaced["workload-a"] == nil {
		t.Fatalf("CPU %d went offline: displaced %v, want workload-a only", lost, displaced)
	}
	again, _, err := p.Place(t.Context(), s, s.exclusive(t, "a", "interactive", "1"))
	if err != nil || again.CPUs[0] == lost || again.CPUs[0] == objects["b"][0] {
		t.Errorf("placed again on %v, %v, want a CPU that is there and free", again, err)
	}
	// With too few CPUs left the new placement is refused.
	if _, err := p.Renew(online(0)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Place(t.Context(), s, s.exclusive(t, "b", "interactive", "1")); !Unsatisfied(err) {
		t.Errorf("one CPU is left: got %v, want a refusal", err)
	}
}

// gpuWorkload asks for one GPU.
func (m *memory) gpuWorkload(t *testing.T, name string) object.Object {
	t.Helper()
	return m.put(t, "apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: "+name+"}\nspec: {image: x, resources: {cpu: '1', devices: [{name: gpu, selector: 'device.attributes[\"oscine.dev\"].kind == \"gpu\"', count: 1}]}}\n")
}

// A GPU that falls off the bus displaces who held it.
func TestLostDeviceDisplaces(t *testing.T) {
	dir := t.TempDir()
	if err := hardwaretest.Server8GPU().Write(dir); err != nil {
		t.Fatal(err)
	}
	before, err := hardware.Discover(dir)
	if err != nil {
		t.Fatal(err)
	}
	p, s := fourCPUs(t)
	state, err := place.NewState(inventory.Machine(before, "test"))
	if err != nil {
		t.Fatal(err)
	}
	p.state.Store(state)
	first := p.mustPlace(t, s, s.gpuWorkload(t, "a"))
	other := p.mustPlace(t, s, s.gpuWorkload(t, "b"))
	held := first.Placement.Devices[0].ID
	if got := p.Holders(held); !slices.Equal(got, []string{"workload-a"}) {
		t.Errorf("%s is held by %v", held, got)
	}
	after, err := before.Clone()
	if err != nil {
		t.Fatal(err)
	}
	for i := range after.Accelerators {
		if after.Accelerators[i].ID == held {
			after.Accelerators[i].Health = hardware.Health{State: "lost", Reasons: []string{"the device is gone from the bus"}}
		}
	}
	displaced, err := p.Renew(after)
	if err != nil {
		t.Fatal(err)
	}
	if why := displaced["workload-a"]; len(displaced) != 1 || why == nil || !strings.Contains(why.Error(), held) {
		t.Fatalf("%s is lost: displaced %v, want workload-a for want of it", held, displaced)
	}
	again, _, err := p.Place(t.Context(), s, s.gpuWorkload(t, "a"))
	if err != nil || again.Placement.Devices[0].ID == held || again.Placement.Devices[0].ID == other.Placement.Devices[0].ID {
		t.Errorf("placed again on %v, %v, want another free GPU", again, err)
	}
}
