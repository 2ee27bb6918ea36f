package place

import (
	"cmp"
	"context"
	"errors"
	"slices"
)

// PlaceAll places all the requests or none: a gang. The refusal names the first
// member that does not fit beside the others, and nothing has been changed; nor
// has it where ctx ends, whose error is returned.
//
// Members that are hard to place go first, each where it fits best. Where that
// leaves no room for one of the rest, places are searched for all of them
// together, up to a bound. The placements come back in the order of the
// requests.
func (s *State) PlaceAll(ctx context.Context, reqs []Request) ([]Placement, error) {
	placements, err := s.placeInTurn(ctx, reqs)
	if err == nil || len(reqs) < 2 {
		return placements, err
	}
	var refusal *Unsatisfied
	if !errors.As(err, &refusal) {
		return nil, err
	}
	g := s.searchGang(ctx, reqs)
	if g.sound() && g.place(hardestFirst(reqs)) {
		placements = make([]Placement, len(reqs))
		for i, p := range g.given {
			placements[i] = *p
		}
		return placements, nil
	}
	if err := g.effort.err(refusal.Request); err != nil {
		return nil, err
	}
	refusal.Failures = append(refusal.Failures, Failure{
		Constraint: "gang", Problem: "all members start together or none does",
		Remedy: "make room for every member, or make the gang smaller",
	})
	return nil, err
}

// placeInTurn gives every member the best place that those before it left.
func (s *State) placeInTurn(ctx context.Context, reqs []Request) ([]Placement, error) {
	order := hardestFirst(reqs)
	placements := make([]Placement, len(reqs))
	for n, i := range order {
		p, err := s.Place(ctx, reqs[i])
		if err != nil {
			for _, j := range order[:n] {
				s.Release(reqs[j].Name)
			}
			return nil, err
		}
		placements[i] = p
	}
	return placements, nil
}

// hardestFirst orders requests by devices, then CPUs, then memory asked for.
func hardestFirst(reqs []Request) []int {
	order := make([]int, len(reqs))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := &reqs[a], &reqs[b]
		return cmp.Or(
			cmp.Compare(countDevices(y), countDevices(x)),
			compareBool(y.Exclusive, x.Exclusive), compareBool(y.WholeCore, x.WholeCore),
			cmp.Compare(y.MilliCPU, x.MilliCPU), cmp.Compare(y.Memory, x.Memory),
		)
	})
	return order
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
