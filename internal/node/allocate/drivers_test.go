package allocate

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/hardware"
)

// What only a driver knew is gone when no driver reports it any more.
func TestDevicesOfDriversComeAndGo(t *testing.T) {
	device := func(id, address string) hardware.Accelerator {
		return hardware.Accelerator{ID: id, Kind: "quantum", Address: address, Health: hardware.Health{State: "ok"}}
	}
	with := &hardware.Machine{Accelerators: []hardware.Accelerator{device("quantum0", "a"), device("quantum1", "b")}}
	without := &hardware.Machine{Accelerators: []hardware.Accelerator{device("quantum0", "a")}}
	for _, c := range []struct {
		before, after *hardware.Machine
		want          hardware.ChangeReason
	}{{nil, with, ""}, {with, with, ""}, {without, with, hardware.DeviceAdded}, {with, without, hardware.DeviceRemoved}} {
		changes := Changes(c.before, c.after)
		if c.want == "" && len(changes) == 0 {
			continue
		}
		if len(changes) != 1 || changes[0].Reason != c.want || changes[0].Device != "quantum1" {
			t.Errorf("got %+v, want %s of quantum1", changes, c.want)
		}
	}
}

// A program that fails for a moment costs nobody a device; one that stays
// silent does, and one that is gone at once.
func TestSilentDriversAreRemembered(t *testing.T) {
	qpu := hardware.Accelerator{ID: "quantum0", Kind: "quantum", Bus: "virtual", Address: "q", Health: hardware.Health{State: "ok"}}
	gpu := hardware.Accelerator{ID: "gpu0", Kind: "gpu", Bus: "pci", Address: "g", Health: hardware.Health{State: "ok"}}
	full := gpu
	full.Memory = 80 << 30
	driver := hardware.Driver{Program: "p", Devices: []string{"q", "g"}}
	d := NewDrivers(nil, nil)
	d.m, d.known = &hardware.Machine{Accelerators: []hardware.Accelerator{full, qpu}}, []hardware.Driver{driver}
	memory := func(programs []string, answered ...hardware.Driver) (got []hardware.Bytes) {
		m := &hardware.Machine{Accelerators: []hardware.Accelerator{gpu}}
		d.remember(m, programs, answered)
		for _, a := range m.Accelerators {
			got = append(got, a.Memory)
		}
		return got
	}
	var got [][]hardware.Bytes
	for range patience {
		got = append(got, memory([]string{"p"}))
	}
	got = append(got, memory([]string{"p"}, driver), memory([]string{"p"}), memory(nil))
	both, alone := []hardware.Bytes{80 << 30, 0}, []hardware.Bytes{0}
	if diff := cmp.Diff([][]hardware.Bytes{both, both, alone, alone, both, alone}, got); diff != "" {
		t.Errorf("memory of the devices on the map (-want +got):\n%s", diff)
	}
}
