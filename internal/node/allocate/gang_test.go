package allocate

import (
	"slices"
	"strings"
	"testing"
)

func TestGangIsPlacedTogetherOrNotAtAll(t *testing.T) {
	p, s := fourCPUs(t)
	one := s.member(t, "one", "2")
	if _, _, err := p.Place(t.Context(), s, one); err == nil || !strings.Contains(err.Error(), "gang g: 1 of 2 members are applied") {
		t.Errorf("a lone member: got %v, want it to wait for the other", err)
	}
	two := s.member(t, "two", "2")
	if _, _, err := p.Place(t.Context(), s, two); !Unsatisfied(err) {
		t.Errorf("2 + 2 exclusive CPUs of 3: got %v, want a refusal", err)
	}
	if left := p.state.Load().Placements(); len(left) != 0 {
		t.Errorf("a refused gang left %v", left)
	}
	two = s.member(t, "two", "1")
	first, second := p.mustPlace(t, s, one), p.mustPlace(t, s, two)
	if len(first.CPUs) != 2 || len(second.CPUs) != 1 || slices.Contains(first.CPUs, second.CPUs[0]) {
		t.Errorf("got CPUs %v and %v, want two and another one", first.CPUs, second.CPUs)
	}
}

// A member that runs stays where it is while the others fit beside it.
func TestGangMembersStay(t *testing.T) {
	p, s := fourCPUs(t)
	one := s.member(t, "one", "1")
	s.member(t, "two", "1")
	before := p.mustPlace(t, s, one)
	grown, displaced, err := p.Place(t.Context(), s, s.member(t, "two", "2"))
	if err != nil || displaced != nil {
		t.Fatalf("displaced %v, %v, want nobody", displaced, err)
	}
	now, _ := p.state.Load().Placement("workload-one")
	if !slices.Equal(now.CPUs, before.CPUs) || len(grown.CPUs) != 2 || slices.Contains(grown.CPUs, now.CPUs[0]) {
		t.Errorf("one had %v and has %v, two has %v", before.CPUs, now.CPUs, grown.CPUs)
	}
}

// Where a member has to move for another, its controller is informed; where it is
// given the same part again, it is not.
func TestGangMembersThatMoveAreTold(t *testing.T) {
	p, s := fourCPUs(t)
	one := s.member(t, "one", "1")
	s.member(t, "two", "1")
	p.mustPlace(t, s, one)
	c := &change{state: p.state.Load().Clone(), moved: map[string]error{}}
	c.take("workload-one", errMoved)
	c.take("workload-two", errMoved)
	c.given = slices.Clone(c.taken)
	moved := c.taken[1]
	moved.CPUs = []int{7}
	c.given[1] = moved
	c.keepUnmoved()
	if told := c.displaced("workload-nobody"); len(told) != 1 || told[moved.Request.Name] == nil {
		t.Errorf("told %v, want only %s", told, moved.Request.Name)
	}
}

// A member that has finished takes no part in placing the others again.
func TestFinishedMemberTakesNoPart(t *testing.T) {
	p, s := fourCPUs(t)
	one := s.member(t, "one", "2")
	s.member(t, "two", "1")
	p.mustPlace(t, s, one)
	if _, err := p.Yield(s, one); err != nil {
		t.Fatal(err)
	}
	if two := p.mustPlace(t, s, s.member(t, "two", "3")); len(two.CPUs) != 3 {
		t.Errorf("two has %v, want the CPUs of the finished member too", two.CPUs)
	}
	if _, ok := p.state.Load().Placement("workload-one"); ok {
		t.Error("a finished member was placed")
	}
}
