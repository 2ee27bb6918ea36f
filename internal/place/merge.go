package place

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ErrContradicts is returned by Merge for a result that no longer holds.
var ErrContradicts = errors.New("others took or gave back what it rests on")

// Merge returns s with the changes by which found differs from base, of which it
// is a changed copy: the result of a search that others did not wait for. s is
// what has become of base meanwhile. What s gives out is whole, though a search
// that starts from s might choose better. The error is ErrContradicts where the
// changes of both contradict each other; s is left as it was.
func (s *State) Merge(base, found *State) (*State, error) {
	if s == base {
		return found, nil
	}
	if s.machine != base.machine {
		return nil, fmt.Errorf("%w: the machine has changed", ErrContradicts)
	}
	next := s.Clone()
	next.linkDemand = s.linkDemand || found.linkDemand
	for name, before := range base.placed {
		if found.placed[name] == before {
			continue
		}
		if s.placed[name] != before {
			return nil, fmt.Errorf("%w: %s", ErrContradicts, name)
		}
		next.Release(name)
	}
	for _, name := range slices.Sorted(maps.Keys(found.placed)) {
		p := found.placed[name]
		if base.placed[name] == p {
			continue
		}
		if len(p.Request.Near)+len(p.Request.Apart) > 0 {
			return nil, fmt.Errorf("%w: %s was placed beside others", ErrContradicts, name)
		}
		next.known[name] = true // it uses nothing yet
		if err := next.Adopt(*p); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrContradicts, err)
		}
	}
	return next, nil
}
