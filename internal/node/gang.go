package node

import (
	"errors"
	"fmt"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/place"
)

// gangOf returns the gang that an object belongs to, nil for none.
func gangOf(obj object.Object) *object.Gang {
	switch obj := obj.(type) {
	case *object.Workload:
		return obj.Spec.Resources.Gang
	case *object.Model:
		return obj.Spec.Resources.Gang
	}
	return nil
}

// placeGang places all members of a gang, or none, and stores each placement;
// it returns the one of name. Members are what the store holds under the
// gang's name. The caller holds p.mu and has found name to be without a valid
// placement, so the whole gang is placed anew: together means together.
func (p *placer) placeGang(s *store, gang *object.Gang, name string) (*Placement, error) {
	members, requests, err := gangMembers(s, gang)
	if err != nil {
		return nil, err
	}
	if len(members) < gang.Size {
		return nil, fmt.Errorf("gang %s: %d of %d members are applied; it is placed when all are", gang.Name, len(members), gang.Size)
	}
	var before []place.Placement
	for _, req := range requests {
		if old, had := p.state.Placement(req.Name); had {
			before = append(before, old)
			p.state.Release(req.Name)
		}
	}
	given, err := p.state.PlaceAll(requests)
	if err != nil {
		for _, old := range before {
			err = errors.Join(err, p.state.Adopt(old))
		}
		return nil, fmt.Errorf("gang %s: %w", gang.Name, err)
	}
	var mine *Placement
	for i, placed := range given {
		if err := s.place(members[i].ObjectKind(), members[i].ObjectName(), placed); err != nil {
			return nil, fmt.Errorf("store the placement of gang %s: %w", gang.Name, err)
		}
		if placed.Request.Name == name {
			mine = &Placement{Placement: placed, Devices: p.cdiNames(&placed)}
		}
	}
	return mine, nil
}

func gangMembers(s *store, gang *object.Gang) ([]object.Object, []place.Request, error) {
	records, err := s.all()
	if err != nil {
		return nil, nil, err
	}
	var members []object.Object
	var requests []place.Request
	for _, rec := range records {
		if g := gangOf(rec.Object); g == nil || g.Name != gang.Name {
			continue
		}
		req, err := placeRequest(rec.Object)
		if err != nil {
			return nil, nil, err
		}
		members, requests = append(members, rec.Object), append(requests, req)
	}
	return members, requests, nil
}
