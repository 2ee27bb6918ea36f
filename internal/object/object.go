package object

import "oscine.dev/oscine/internal/place"

// APIVersion is the only apiVersion that this release reads and writes.
const APIVersion = "oscine.dev/v1"

// Header begins every object.
type Header struct {
	APIVersion string   `json:"apiVersion"` // oscine.dev/v1
	Kind       Kind     `json:"kind"`       // what the object is, such as Workload
	Metadata   Metadata `json:"metadata"`
}

// Metadata names an object: 1 to 63 lower-case letters and digits, with single
// hyphens between them.
type Metadata struct {
	Name   string            `json:"name"`             // unique among the objects of the kind
	Labels map[string]string `json:"labels,omitempty"` // your own keys and values, to select objects by
}

// Key returns the object's kind and name, which no other object of the node
// has.
func (h *Header) Key() Key { return Key{h.Kind, h.Metadata.Name} }

// Object is a decoded, defaulted and valid object of one of the kinds of a
// Table, a pointer to a struct with a Header and a Spec.
type Object interface {
	Key() Key
	// SetDefaults replaces zero values by their documented defaults.
	SetDefaults()
	// Check reports the mistakes that types alone don't catch.
	Check(*Checker)
}

// Placeable is an object that gets a part of the machine.
type Placeable interface {
	Object
	Resources() *Resources
	Class() Class
}

// Publisher is an object with ports on the node.
type Publisher interface {
	Object
	Ports() []Port
}

// PlaceRequest states an object's resources in the terms of the placement
// engine, under the name of its ID. It fails on what Check would have
// reported.
func PlaceRequest(obj Placeable) (place.Request, error) {
	req, err := obj.Resources().Request(obj.Key().ID(), obj.Class())
	if of, i := obj.Key().Instance(); i > 0 {
		req.Of = of.ID()
	}
	return req, err
}

// GangOf returns the gang that an object belongs to, nil for none.
func GangOf(obj Object) *Gang {
	if p, ok := obj.(Placeable); ok {
		return p.Resources().Gang
	}
	return nil
}
