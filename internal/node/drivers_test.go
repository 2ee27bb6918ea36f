package node

import (
	"testing"

	"oscine.dev/oscine/internal/hardware"
)

// What only a driver knew is gone when no driver tells of it any more.
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
		changes := sinceBefore(c.before, c.after)
		if c.want == "" && len(changes) == 0 {
			continue
		}
		if len(changes) != 1 || changes[0].Reason != c.want || changes[0].Device != "quantum1" {
			t.Errorf("got %+v, want %s of quantum1", changes, c.want)
		}
	}
}
