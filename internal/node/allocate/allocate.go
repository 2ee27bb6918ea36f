package allocate

import (
	"encoding/json"
	"errors"
	"fmt"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/place"
)

// Placement is an object's part of the machine.
type Placement struct {
	place.Placement
	Devices []string // CDI names

	// What a container needs beside, where a device is shared; see Shares.
	Env    []string
	Mounts []hardware.ShareMount
}

// Status is the placement as it is shown to people.
func (p *Placement) Status() *object.PlacementStatus {
	st := &object.PlacementStatus{
		CPUs: place.FormatCPUs(p.CPUs), NUMANodes: place.FormatCPUs(p.NUMANodes),
		Exclusive: p.Request.Exclusive, Reason: p.Reason,
	}
	for _, d := range p.Placement.Devices {
		st.Devices = append(st.Devices, d.ID)
		if !d.Fraction.Whole() {
			st.Sharing = append(st.Sharing, fmt.Sprintf("%s by %s: %s", d.ID, d.Sharing, d.Why))
		}
	}
	if r := p.RunnerUp; r != nil {
		st.RunnerUp = fmt.Sprintf("CPUs %s: %s", place.FormatCPUs(r.CPUs), r.Why)
	}
	return st
}

// Placed says where an object was placed.
type Placed struct {
	Object    object.Object
	Placement place.Placement
}

// Store is where placements are kept over a restart.
type Store interface {
	// Objects returns the stored objects that this release can read.
	Objects() ([]object.Object, error)
	// SetPlacements records where objects were placed, for all of them or for
	// none; it is on disk when the method returns.
	SetPlacements([]Placed) error
	// ForgetPlacement records that an object has no placement any more.
	ForgetPlacement(object.Object) error
}

// Unsatisfied reports whether an error is the refusal of a request that does
// not fit the machine as it is.
func Unsatisfied(err error) bool {
	var u *place.Unsatisfied
	return errors.As(err, &u)
}

// ErrNotPlaced is returned for an object of a kind that takes no part of the
// machine.
var ErrNotPlaced = errors.New("objects of this kind are not placed")

// requestOf turns an object's resources into a request of the engine.
func requestOf(obj object.Object) (place.Request, error) {
	p, ok := obj.(object.Placeable)
	if !ok {
		return place.Request{}, fmt.Errorf("%s: %w", obj.Key(), ErrNotPlaced)
	}
	return object.PlaceRequest(p)
}

func sameRequest(a, b *place.Request) bool {
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	return errA == nil && errB == nil && string(x) == string(y)
}
