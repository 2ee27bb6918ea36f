package object

import (
	"cmp"
	"fmt"
	"slices"

	"oscine.dev/oscine/internal/place"
)

// Request states the resources in the terms of the placement engine, under the
// given name. Names in near and apart become those under which a node places
// objects. It fails on what validation would have reported.
func (r *Resources) Request(name string, class Class) (place.Request, error) {
	req := place.Request{
		Name: name, Class: placeClass(class), Priority: r.Priority,
		Exclusive: r.CPUPolicy == CPUExclusive || class == Realtime,
		WholeCore: class == Realtime,
		CoreKind:  r.CoreKind, Features: r.InstructionSets,
		MemKind: place.MemoryKind(r.MemoryKind),
		Near:    references(r.Near), Apart: references(r.Apart),
		OneNode: r.OneNode, Latency: r.Latency.Std(),
	}
	var okCPU, okMemory bool
	req.MilliCPU, okCPU = r.CPU.MilliValue()
	req.Memory, okMemory = r.Memory.Value()
	if !okCPU || !okMemory {
		return place.Request{}, fmt.Errorf("resources of %s: cpu %s or memory %s is out of range", name, r.CPU, r.Memory)
	}
	if r.CPUSelector != "" {
		sel, err := place.CompileSelector(r.CPUSelector)
		if err != nil {
			return place.Request{}, fmt.Errorf("CPU selector of %s: %w", name, err)
		}
		req.CPUs = sel
	}
	for size, bytes := range r.HugePages {
		page, okSize := size.Value()
		amount, okBytes := bytes.Value()
		if !okSize || !okBytes {
			return place.Request{}, fmt.Errorf("resources of %s: huge pages %s: %s is out of range", name, size, bytes)
		}
		req.HugePages = append(req.HugePages, place.HugePages{Size: page, Bytes: amount})
	}
	slices.SortFunc(req.HugePages, func(a, b place.HugePages) int { return cmp.Compare(a.Size, b.Size) })
	for i := range r.Devices {
		d, err := r.Devices[i].request()
		if err != nil {
			return place.Request{}, fmt.Errorf("device %q of %s: %w", r.Devices[i].Name, name, err)
		}
		req.Devices = append(req.Devices, d)
	}
	for _, l := range r.Links {
		req.Links = append(req.Links, place.LinkRequest{Between: l.Between, By: place.LinkKind(l.By)})
	}
	return req, nil
}

func (d *DeviceClaim) request() (place.DeviceRequest, error) {
	req := place.DeviceRequest{Name: d.Name, Count: max(d.Count, 1)}
	if d.Selector != "" {
		sel, err := place.CompileSelector(d.Selector)
		if err != nil {
			return req, err
		}
		req.Selector = sel
	}
	if f := d.Fraction; f != nil {
		milli, _ := f.Share.MilliValue()
		memory, _ := f.Memory.Value()
		req.Fraction = place.Fraction{Profile: f.Profile, Milli: milli, Memory: memory}
	}
	return req, nil
}

func placeClass(c Class) place.Class {
	switch c {
	case Realtime:
		return place.Realtime
	case Batch:
		return place.Batch
	}
	return place.Interactive
}

// references turns "name" and "Kind/name" into the IDs of those objects.
func references(names []string) []string {
	var ids []string
	for _, n := range names {
		ids = append(ids, reference(n).ID())
	}
	return ids
}
