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

// PlacementStatus is a placement as it is shown to people.
type PlacementStatus struct {
	CPUs      string   `json:"cpus"`
	NUMANodes string   `json:"numaNodes,omitempty"`
	Exclusive bool     `json:"exclusive,omitempty"`
	Devices   []string `json:"devices,omitempty"`
	Sharing   []string `json:"sharing,omitempty"` // of devices that are not whole: how, and why so
	Reason    string   `json:"reason"`
	RunnerUp  string   `json:"runnerUp,omitempty"`
}

// Status is the placement as it is shown to people.
func (p *Placement) Status() *PlacementStatus {
	st := &PlacementStatus{
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

// resourcesOf returns what an object asks for and under which class.
func resourcesOf(obj object.Object) (*object.Resources, object.Class, error) {
	switch obj := obj.(type) {
	case *object.Workload:
		return &obj.Spec.Resources, obj.Spec.Class, nil
	case *object.Model:
		return &obj.Spec.Resources, obj.Spec.Class, nil
	}
	return nil, "", fmt.Errorf("%s/%s: %w", obj.ObjectKind(), obj.ObjectName(), ErrNotPlaced)
}

// requestOf turns a manifest's resources into a request of the engine.
func requestOf(obj object.Object) (place.Request, error) {
	r, class, err := resourcesOf(obj)
	if err != nil {
		return place.Request{}, err
	}
	return r.Request(idOf(obj), class)
}

// gangOf returns the gang that an object belongs to, nil for none.
func gangOf(obj object.Object) *object.Gang {
	r, _, err := resourcesOf(obj)
	if err != nil {
		return nil
	}
	return r.Gang
}

// idOf is the name under which an object is placed.
func idOf(obj object.Object) string {
	if obj.ObjectKind() == object.KindModel {
		return "model-" + obj.ObjectName()
	}
	return "workload-" + obj.ObjectName()
}

func sameRequest(a, b *place.Request) bool {
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	return errA == nil && errB == nil && string(x) == string(y)
}
