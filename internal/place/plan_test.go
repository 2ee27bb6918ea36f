package place

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

func mustPlace(t testing.TB, s *State, reqs ...Request) {
	t.Helper()
	for _, r := range reqs {
		if _, err := s.Place(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGangIsAllOrNothing(t *testing.T) {
	s := newState(t, grid(1, 1, 1, 8, 1))
	member := func(n int) Request {
		return Request{Name: fmt.Sprint("m", n), MilliCPU: 2000, Exclusive: true}
	}
	if _, err := s.PlaceAll(t.Context(), []Request{member(0), member(1), member(2), member(3)}); err == nil {
		t.Fatal("four members of two CPUs were placed on seven free CPUs")
	}
	if n := len(s.Placements()); n != 0 {
		t.Errorf("%d members remain of a gang that was refused", n)
	}
	got, err := s.PlaceAll(t.Context(), []Request{member(0), member(1), member(2)})
	if err != nil || len(got) != 3 || got[1].Request.Name != "m1" {
		t.Errorf("got %v, %v; want the three members in order", got, err)
	}
}

func TestPreemptionStopsTheLeast(t *testing.T) {
	s := newState(t, grid(1, 1, 1, 9, 1))
	mustPlace(t, s,
		Request{Name: "batch-large", Class: Batch, MilliCPU: 3000, Exclusive: true},
		Request{Name: "batch-small", Class: Batch, MilliCPU: 1000, Exclusive: true},
		Request{Name: "batch-dear", Class: Batch, Priority: 9, MilliCPU: 2000, Exclusive: true},
		Request{Name: "web", Class: Interactive, MilliCPU: 2000, Exclusive: true},
	)
	cases := []struct {
		req  Request
		want []string
	}{
		{Request{Class: Interactive, MilliCPU: 1000, Exclusive: true}, []string{"batch-small"}},
		{Request{Class: Interactive, MilliCPU: 3000, Exclusive: true}, []string{"batch-large"}},
		{Request{Class: Interactive, MilliCPU: 4000, Exclusive: true}, []string{"batch-large", "batch-small"}},
		{Request{Class: Realtime, MilliCPU: 8000, Exclusive: true}, []string{"batch-dear", "batch-large", "batch-small", "web"}},
		{Request{Class: Batch, Priority: 5, MilliCPU: 1000, Exclusive: true}, []string{"batch-small"}},
	}
	before := len(s.Placements())
	for _, c := range cases {
		c.req.Name = "new"
		got, err := s.Preempt(t.Context(), c.req, nil)
		if err != nil {
			t.Errorf("%v of %d: %v", c.req.Class, c.req.MilliCPU, err)
			continue
		}
		if !slices.Equal(got.Victims, c.want) {
			t.Errorf("%v of %d: got victims %v, want %v", c.req.Class, c.req.MilliCPU, got.Victims, c.want)
		}
	}
	var refusal *Unsatisfied
	if _, err := s.Preempt(t.Context(), Request{Name: "new", Class: Batch, MilliCPU: 1000, Exclusive: true}, nil); !errors.As(err, &refusal) {
		t.Errorf("got %v, want a refusal: nothing gives way to plain batch work", err)
	}
	if len(s.Placements()) != before {
		t.Error("looking for victims changed the state")
	}
}

func TestDefragmentMovesTheFewest(t *testing.T) {
	s := newState(t, grid(2, 1, 1, 6, 1))
	for i := range 10 {
		mustPlace(t, s, Request{Name: fmt.Sprint("w", i), MilliCPU: 1000, Exclusive: true})
	}
	// With the one left, three CPUs are free, at most two on a node: a request
	// for three on one node needs a move.
	freed := map[int]int{}
	for _, p := range s.Placements() {
		node := p.CPUs[0] / 6
		if freed[node] == 0 {
			freed[node]++
			s.Release(p.Request.Name)
		}
	}
	req := Request{Name: "new", MilliCPU: 3000, Exclusive: true, OneNode: true}
	if _, err := s.Try(t.Context(), req); err == nil {
		t.Fatal("the request fits without a move: the test does not test")
	}
	moves, err := s.Defragment(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if len(moves) != 1 {
		t.Fatalf("got %d moves, want 1", len(moves))
	}
	for _, m := range moves {
		s.Release(m.Name)
		if err := s.Adopt(m.To); err != nil {
			t.Fatalf("the plan cannot be carried out: %v", err)
		}
	}
	mustPlace(t, s, req)
}

func TestCoreKindsSuitTheClass(t *testing.T) {
	m := &Machine{}
	for i := range 8 {
		kind := "performance"
		if i >= 4 {
			kind = "efficiency"
		}
		m.CPUs = append(m.CPUs, CPU{ID: i, Core: i, Kind: kind, Reserved: i == 0})
	}
	s := newState(t, m)
	kindOf := func(r Request) string {
		p, err := s.Place(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return m.CPUs[p.CPUs[0]].Kind
	}
	if got := kindOf(Request{Name: "rt", Class: Realtime, MilliCPU: 1000, Exclusive: true}); got != "performance" {
		t.Errorf("realtime work got %s cores", got)
	}
	if got := kindOf(Request{Name: "b", Class: Batch, MilliCPU: 4000, Exclusive: true}); got != "efficiency" {
		t.Errorf("batch work got %s cores", got)
	}
	if got := kindOf(Request{Name: "b2", Class: Batch, MilliCPU: 1000, Exclusive: true}); got != "performance" {
		t.Errorf("batch work that no efficiency core is left for got %s cores", got)
	}
}
