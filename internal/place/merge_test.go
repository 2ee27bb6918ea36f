package place

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

// Two who change copies of one State either contradict each other or end in a
// State that gives nothing twice and has what both made of it.
func TestMerge(t *testing.T) {
	merged, contradicted := 0, 0
	for seed := range uint64(400) {
		random := rand.New(rand.NewPCG(seed, 2))
		m := &Machine{Name: "test"}
		for id := range 8 {
			m.CPUs = append(m.CPUs, CPU{ID: id, Core: id, NUMA: id / 4})
		}
		m.NUMA = []NUMANode{{ID: 0, Memory: 1 << 30}, {ID: 1, Memory: 1 << 30}}
		base, err := NewState(m)
		if err != nil {
			t.Fatal(err)
		}
		edit := func(s *State, who string) {
			for i := range 1 + random.IntN(4) {
				if held := s.Placements(); random.IntN(3) == 0 && len(held) > 0 {
					s.Release(held[random.IntN(len(held))].Request.Name)
					continue
				}
				req := Request{Name: fmt.Sprint(who, i), MilliCPU: int64(1+random.IntN(3)) * 1000, Exclusive: random.IntN(2) == 0, Memory: int64(random.IntN(3)) << 29}
				_, _ = s.Place(t.Context(), req)
			}
		}
		edit(base, "base")
		mine, theirs := base.Clone(), base.Clone()
		edit(mine, "mine")
		edit(theirs, "theirs")
		both, err := theirs.Merge(base, mine)
		if err != nil {
			if !errors.Is(err, ErrContradicts) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			contradicted++
			continue
		}
		merged++
		fresh, err := NewState(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range both.Placements() {
			if err := fresh.Adopt(p); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		for name := range mine.placed {
			if _, there := both.placed[name]; base.placed[name] == nil && !there {
				t.Errorf("seed %d: %s is lost", seed, name)
			}
		}
		for name := range base.placed {
			if _, there := both.placed[name]; there && (mine.placed[name] == nil || theirs.placed[name] == nil) {
				t.Errorf("seed %d: %s was given back and is there", seed, name)
			}
		}
	}
	if merged < 50 || contradicted < 50 {
		t.Errorf("%d merged, %d contradicted: the test tries too little", merged, contradicted)
	}
	one, err := NewState(&Machine{Name: "a", CPUs: []CPU{{}}, NUMA: []NUMANode{{}}})
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := one.Rebase(&Machine{Name: "a", CPUs: []CPU{{}}, NUMA: []NUMANode{{}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Merge(one, one.Clone()); !errors.Is(err, ErrContradicts) {
		t.Errorf("over a change of the machine: %v", err)
	}
}
