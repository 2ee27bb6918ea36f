package allocate

import (
	"context"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/place"
)

// Desired is an object that is to be placed.
type Desired struct {
	Object object.Object
	// Changed says that it is new or changed: then it is placed even
	// if it had finished.
	Changed bool
}

// Outcome is what placing one object comes to.
type Outcome struct {
	Placement *place.Placement // nil where it has none
	// Displaced are those that lose their placement to it or get another one, by
	// name, and why.
	Displaced map[string]error
	Err       error // why it has no placement; nil where it needs none now
}

// Allot places objects in their order, each as Place does. displace says that
// work of stricter classes than batch may have to make room. The outcomes come
// in the order of the objects; the caller must notify the displaced.
func (p *Placer) Allot(ctx context.Context, s Store, desired []Desired, displace bool) []Outcome {
	s = beside{s, desired}
	outcomes := make([]Outcome, len(desired))
	for i, w := range desired {
		outcomes[i] = p.outcome(ctx, s, w, displace)
	}
	// A gang is placed with the last of its members, and work that has its place
	// may lose it to what follows: what counts is what each has in the end.
	state := p.state.Load()
	for i, w := range desired {
		if held, ok := state.Placement(w.Object.Key().ID()); ok && p.asked(w, &held) {
			outcomes[i].Placement, outcomes[i].Err = &held, nil
		} else if outcomes[i].Placement != nil {
			outcomes[i].Placement, outcomes[i].Err = nil, displacedBy(outcomes[i+1:], w.Object.Key().ID())
		}
	}
	return outcomes
}

// Preview returns what Allot would, and changes nothing.
func (p *Placer) Preview(ctx context.Context, s Store, desired []Desired, displace bool) []Outcome {
	p.mu.Lock()
	trial := newPlacer(p.log, p.state.Load(), p.cdi)
	trial.yielded = p.yielded
	p.mu.Unlock()
	return trial.Allot(ctx, forgetful{s}, desired, displace)
}

func (p *Placer) outcome(ctx context.Context, s Store, w Desired, displace bool) Outcome {
	req, err := requestOf(w.Object)
	if err != nil {
		return Outcome{} // of a kind that is not placed, or refused when it is started
	}
	p.mu.Lock()
	yielded, ok := p.yielded[req.Name]
	p.mu.Unlock()
	if ok && !w.Changed && sameRequest(&yielded, &req) {
		return Outcome{}
	}
	placed, displaced, err := p.place(ctx, s, w.Object, displace)
	if err != nil {
		return Outcome{Err: err}
	}
	return Outcome{Placement: &placed.Placement, Displaced: displaced}
}

// asked reports whether a placement is the one that a desired asks for.
func (p *Placer) asked(w Desired, held *place.Placement) bool {
	req, err := requestOf(w.Object)
	return err == nil && sameRequest(&held.Request, &req)
}

func displacedBy(later []Outcome, name string) error {
	for _, o := range later {
		if why := o.Displaced[name]; why != nil {
			return why
		}
	}
	return nil
}

// beside is a Store with desired that it does not know yet in place of what it
// has of the same names.
type beside struct {
	Store
	desired []Desired
}

// Objects implements Store.
func (b beside) Objects() ([]object.Object, error) {
	objects, err := b.Store.Objects()
	if err != nil {
		return nil, err
	}
	all := slices.DeleteFunc(slices.Clone(objects), func(there object.Object) bool {
		return slices.ContainsFunc(b.desired, func(w Desired) bool { return w.Object.Key() == there.Key() })
	})
	for _, w := range b.desired {
		all = append(all, w.Object)
	}
	slices.SortFunc(all, func(x, y object.Object) int { return strings.Compare(x.Key().String(), y.Key().String()) })
	return all, nil
}

// forgetful is a Store that keeps nothing.
type forgetful struct{ Store }

// SetPlacements implements Store.
func (forgetful) SetPlacements([]Placed) error { return nil }

// ForgetPlacement implements Store.
func (forgetful) ForgetPlacement(object.Object) error { return nil }
