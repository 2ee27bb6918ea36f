package allocate

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/place"
)

// held is a Store on which a search for a gang waits, when it reads the objects,
// for each of what is to happen meanwhile.
type held struct {
	*memory
	meanwhile []func()
	searches  int
}

func (h *held) Objects() ([]object.Object, error) {
	objects, err := h.memory.Objects()
	objects = slices.Clone(objects)
	h.searches++
	if len(h.meanwhile) > 0 {
		do := h.meanwhile[0]
		h.meanwhile = h.meanwhile[1:]
		do()
	}
	return objects, err
}

// gangOf stores a gang of two.
func (m *memory) gangOf(t *testing.T, one, two string) object.Object {
	t.Helper()
	m.member(t, "two", two)
	return m.member(t, "one", one)
}

// A search that takes long holds up no other: here another is placed, looked at
// and given back in the middle of it. Its result stands where nothing
// contradicts it.
func TestSearchHoldsNobodyUp(t *testing.T) {
	p, s := fourCPUs(t)
	one := s.gangOf(t, "1", "1")
	shared := s.put(t, "apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: shared}\nspec: {image: x, resources: {memory: 1Mi}}\n")
	slow := &held{memory: s, meanwhile: []func(){func() {
		placed := p.mustPlace(t, s, shared)
		if st := p.Now("workload-shared", placed.Status()); st.CPUs == "" || len(p.Shared()) != 1 {
			t.Errorf("it is shown on %q", st.CPUs)
		}
		if got := p.Preview(t.Context(), s, []Desired{{s.exclusive(t, "other", "interactive", "1"), true}}, false); got[0].Err != nil {
			t.Error(got[0].Err)
		}
	}}}
	p.mustPlace(t, slow, one)
	if want := 3; len(p.state.Load().Placements()) != want || slow.searches != 1 {
		t.Errorf("%d are placed after %d searches, want %d after one", len(p.state.Load().Placements()), slow.searches, want)
	}
}

// What a search found is searched for again where others took it meanwhile; a
// refusal, where others made room.
func TestContradictedSearchIsRepeated(t *testing.T) {
	p, s := fourCPUs(t)
	one := s.gangOf(t, "1", "1")
	slow := &held{memory: s, meanwhile: []func(){func() { p.mustPlace(t, s, s.exclusive(t, "quick", "interactive", "3")) }}}
	if _, _, err := p.Place(t.Context(), slow, one); !Unsatisfied(err) {
		t.Errorf("all CPUs were taken meanwhile: %v", err)
	}
	slow.meanwhile = []func(){func() { p.Release("workload-quick") }}
	p.mustPlace(t, slow, one)
	if slow.searches != 4 {
		t.Errorf("%d searches, want two for each call", slow.searches)
	}
	checkDisjoint(t, p)
}

// One whose base changes each time is not starved: the others wait for it once.
func TestContradictedSearchEnds(t *testing.T) {
	p, s := fourCPUs(t)
	one := s.gangOf(t, "1", "2")
	slow := &held{memory: s}
	for range maxTries {
		slow.meanwhile = append(slow.meanwhile, func() {
			p.Release("workload-quick")
			p.mustPlace(t, s, s.exclusive(t, "quick", "batch", "1"))
		})
	}
	if _, _, err := p.Place(t.Context(), slow, one); !Unsatisfied(err) || slow.searches != maxTries+1 {
		t.Errorf("%v after %d searches", err, slow.searches)
	}
}

// A member that is removed during the search for its gang gets no place.
func TestRemovedDuringTheSearch(t *testing.T) {
	p, s := fourCPUs(t)
	one := s.gangOf(t, "1", "1")
	slow := &held{memory: s, meanwhile: []func(){func() {
		p.Release("workload-two")
		s.objects = slices.DeleteFunc(s.objects, func(o object.Object) bool { return o.Key().Name == "two" })
	}}}
	if placed, _, err := p.Place(t.Context(), slow, one); err == nil {
		t.Errorf("placed on %v without its gang", placed.CPUs)
	}
	if left := p.state.Load().Placements(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func checkDisjoint(t *testing.T, p *Placer) {
	t.Helper()
	holder := map[int]string{}
	for _, h := range p.state.Load().Placements() {
		for _, cpu := range h.CPUs {
			if other := holder[cpu]; h.Request.Exclusive && other != "" {
				t.Errorf("CPU %d is given to %s and %s", cpu, h.Request.Name, other)
			}
			holder[cpu] = h.Request.Name
		}
	}
}

// Many at once: no CPU is given twice, and all are free in the end.
func TestManyAtOnce(t *testing.T) {
	p, s := fourCPUs(t)
	objects := make([]object.Object, 8)
	for i := range objects {
		objects[i] = s.exclusive(t, fmt.Sprint("w", i), []string{"batch", "interactive"}[i%2], fmt.Sprint(1+i%3))
	}
	store := &sync.Mutex{}
	var wg sync.WaitGroup
	for i := range objects {
		wg.Go(func() {
			for range 50 {
				_, _, err := p.Place(t.Context(), lockedStore{s, store}, objects[i])
				if err != nil && !Unsatisfied(err) {
					t.Error(err)
				}
				checkDisjoint(t, p)
				p.Release(objects[i].Key().ID())
			}
		})
	}
	wg.Wait()
	if left := p.state.Load().Placements(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := p.Lend(t.Context(), place.Request{Name: "all", MilliCPU: 3000, Exclusive: true}); err != nil {
		t.Errorf("not all is free: %v", err)
	}
}

type lockedStore struct {
	*memory
	mu *sync.Mutex
}

func (l lockedStore) SetPlacements(placed []Placed) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.memory.SetPlacements(placed)
}
