package place

import (
	"context"
	"maps"
	"slices"
)

// Move is one step of a plan: stop a placement and start it elsewhere.
type Move struct {
	Name string    `json:"name,omitempty"`
	From Placement `json:"from"`
	To   Placement `json:"to"`
}

// Bounds on the search for a plan.
const (
	maxMoves     = 8
	maxMovePlans = 4000 // plans tried
)

// Defragment plans moves of running placements that make room for a request:
// as few as possible, the smallest first. Each move can be carried out when
// those before it have been. Nothing is changed. The plan is empty where the
// request fits already; where no plan was found, the error is the *Unsatisfied
// of the request, and where ctx ends, its error.
func (s *State) Defragment(ctx context.Context, req Request) ([]Move, error) {
	_, refused := s.choose(ctx, &req)
	if refused == nil {
		return nil, nil
	}
	e := newEffort(ctx, maxPlanEffort)
	movable := s.movable()
	tried := 0
	for depth := 1; depth <= min(maxMoves, len(movable)); depth++ {
		if moves := s.moveSome(e, &req, movable, depth, &tried); moves != nil {
			return moves, nil
		}
		if err := e.err(req.Name); err != nil {
			return nil, err
		}
		if tried > maxMovePlans || e.spent() {
			break
		}
	}
	return nil, refused
}

// movable lists what holds something exclusively, the smallest first.
func (s *State) movable() []string {
	var all []*Placement
	for _, name := range slices.Sorted(maps.Keys(s.placed)) {
		all = append(all, s.placed[name])
	}
	sortBy(all, func(a, b *Placement) bool { return moreValuable(b, a) })
	names := make([]string, len(all))
	for i, p := range all {
		names[i] = p.Request.Name
	}
	return names
}

// moveSome tries every choice of depth placements: without them the request is
// placed first, then they are placed again around it.
func (s *State) moveSome(e *effort, req *Request, names []string, depth int, tried *int) []Move {
	if depth == 0 {
		return nil
	}
	chosen := make([]string, 0, depth)
	var found []Move
	var visit func(from int) bool
	visit = func(from int) bool {
		if len(chosen) == depth {
			*tried++
			found = s.planFor(e, req, chosen)
			return found != nil || *tried > maxMovePlans || !e.spend(1)
		}
		for i := from; i <= len(names)-(depth-len(chosen)); i++ {
			chosen = append(chosen, names[i])
			if visit(i + 1) {
				return true
			}
			chosen = chosen[:len(chosen)-1]
		}
		return false
	}
	visit(0)
	return found
}

// planFor returns the moves of the named placements that make room, or nil.
func (s *State) planFor(e *effort, req *Request, names []string) []Move {
	trial := s.Clone()
	for _, n := range names {
		trial.Release(n)
	}
	if p, err := trial.decide(e, req); err == nil {
		trial.commit(p)
	} else {
		return nil
	}
	var moves []Move
	for _, n := range slices.Backward(names) {
		from := *s.placed[n]
		to, err := trial.decide(e, &from.Request)
		if err != nil {
			return nil
		}
		trial.commit(to)
		moves = append(moves, Move{Name: n, From: from, To: *to})
	}
	return s.orderMoves(e, req, moves)
}

// orderMoves finds an order in which every target is free when its turn comes
// and after which the request fits, its neighbours being where they are then;
// or nil.
func (s *State) orderMoves(e *effort, req *Request, moves []Move) []Move {
	trial := s.Clone()
	var ordered []Move
	for len(moves) > 0 {
		next := slices.IndexFunc(moves, func(m Move) bool { return trial.moves(&m) })
		if next < 0 {
			return nil
		}
		ordered = append(ordered, moves[next])
		moves = slices.Delete(moves, next, next+1)
	}
	if !trial.feasible(e, req) {
		return nil
	}
	return ordered
}

// moves carries out a move where its target is free, and reports whether it
// was.
func (s *State) moves(m *Move) bool {
	s.Release(m.Name)
	to := m.To
	if s.Adopt(to) == nil {
		return true
	}
	from := m.From
	s.commit(&from) // it held this a moment ago
	return false
}
