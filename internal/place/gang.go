package place

import "errors"

// PlaceAll places all the requests or none: a gang. The refusal names the first
// member that does not fit beside the others, and nothing has been changed.
//
// Members that are hard to place go first; the placements come back in the
// order of the requests.
func (s *State) PlaceAll(reqs []Request) ([]Placement, error) {
	order := hardestFirst(reqs)
	placements := make([]Placement, len(reqs))
	for n, i := range order {
		p, err := s.Place(reqs[i])
		if err == nil {
			placements[i] = p
			continue
		}
		for _, j := range order[:n] {
			s.Release(reqs[j].Name)
		}
		var refusal *Unsatisfied
		if len(reqs) > 1 && errors.As(err, &refusal) {
			refusal.Failures = append(refusal.Failures, Failure{
				Constraint: "gang", Problem: "all members start together or none does",
				Remedy: "make room for every member, or make the gang smaller",
			})
		}
		return nil, err
	}
	return placements, nil
}

// hardestFirst orders requests by devices, then CPUs, then memory asked for.
func hardestFirst(reqs []Request) []int {
	order := make([]int, len(reqs))
	for i := range order {
		order[i] = i
	}
	sortBy(order, func(a, b int) bool {
		x, y := &reqs[a], &reqs[b]
		if dx, dy := countDevices(x), countDevices(y); dx != dy {
			return dx > dy
		}
		if x.Exclusive != y.Exclusive {
			return x.Exclusive
		}
		if x.MilliCPU != y.MilliCPU {
			return x.MilliCPU > y.MilliCPU
		}
		return x.Memory > y.Memory
	})
	return order
}
