package allocate

import (
	"fmt"
	"reflect"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/place"
)

// placeGang places all members of a gang, or none. Members are what the store
// holds under the gang's name. Those that have a valid placement keep it as
// long as the others fit beside them; where they don't, the whole gang is
// placed again, and who moves is displaced. Members that have finished take no
// part. Name was found to be without a valid placement.
func (c *change) placeGang(s Store, gang *object.Gang, name string) error {
	members, requests, err := gangMembers(s, gang)
	if err != nil {
		return err
	}
	if len(members) < gang.Size {
		return fmt.Errorf("gang %s: %d of %d members are applied; it is placed when all are", gang.Name, len(members), gang.Size)
	}
	var all, missing []place.Request
	for _, req := range requests {
		if yielded, ok := c.yielded[req.Name]; ok && sameRequest(&yielded, &req) {
			continue
		}
		all = append(all, req)
		if old, had := c.state.Placement(req.Name); !had || !sameRequest(&old.Request, &req) {
			missing = append(missing, req)
			c.take(req.Name, nil) // its own change is known to its controller
		}
	}
	err = c.give(missing...)
	if Unsatisfied(err) && len(missing) < len(all) {
		for _, req := range all {
			c.take(req.Name, errMoved)
		}
		err = c.give(all...)
	}
	if err != nil {
		return fmt.Errorf("gang %s: %w", gang.Name, err)
	}
	c.keepUnmoved()
	c.record(members)
	return nil
}

// keepUnmoved strikes from the moved those that were given again what they had.
func (c *change) keepUnmoved() {
	for _, old := range c.taken {
		for _, g := range c.given {
			if g.Request.Name == old.Request.Name && samePart(&old, &g) {
				delete(c.moved, old.Request.Name)
			}
		}
	}
}

// samePart reports whether two placements are the same part of the machine.
func samePart(a, b *place.Placement) bool {
	sameCPUs := !a.Request.Exclusive || reflect.DeepEqual(a.CPUs, b.CPUs) // shared ones come and go
	return sameRequest(&a.Request, &b.Request) && sameCPUs && reflect.DeepEqual(a.Held, b.Held) &&
		reflect.DeepEqual(a.NUMANodes, b.NUMANodes) && reflect.DeepEqual(a.Devices, b.Devices)
}

func gangMembers(s Store, gang *object.Gang) ([]object.Object, []place.Request, error) {
	objects, err := s.Objects()
	if err != nil {
		return nil, nil, err
	}
	var members []object.Object
	var requests []place.Request
	for _, obj := range objects {
		if g := object.GangOf(obj); g == nil || g.Name != gang.Name {
			continue
		}
		req, err := requestOf(obj)
		if err != nil {
			return nil, nil, err
		}
		members, requests = append(members, obj), append(requests, req)
	}
	return members, requests, nil
}
