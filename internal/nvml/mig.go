package nvml

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"unsafe"

	"oscine.dev/oscine/internal/hardware"
)

// Numbers of nvml.h.
const (
	instanceProfiles = 0x12 // NVML_GPU_INSTANCE_PROFILE_COUNT
	computeProfiles  = 0x9  // NVML_COMPUTE_INSTANCE_PROFILE_COUNT
	migOn            = 1
)

// maxInstances bounds the instances and places of one profile; today's GPUs
// have eight slices.
const maxInstances = 64

// profile is a size of GPU instance.
type profile struct {
	hardware.PartitionProfile
	id      uint32
	compute uint32 // slices
}

// migMode reports whether MIG is on, and whether the device has it at all.
func (d *Device) migMode() (on, capable bool) {
	var current, pending uint32
	err := d.l.call("nvmlDeviceGetMigMode", d.handle, uintptr(unsafe.Pointer(&current)), uintptr(unsafe.Pointer(&pending)))
	return err == nil && current == migOn, err == nil
}

// setMIG switches MIG on or off. Where the GPU takes the change only at a reset
// that cannot be done now, the change is taken back: nothing is left pending.
func (d *Device) setMIG(on bool) error {
	was, capable := d.migMode()
	if !capable {
		return d.wrap(&Error{Function: "nvmlDeviceSetMigMode", Code: NotSupported})
	}
	if was == on {
		return nil
	}
	set := func(on bool) error {
		mode, activation := uintptr(0), uint32(0)
		if on {
			mode = migOn
		}
		if err := d.l.call("nvmlDeviceSetMigMode", d.handle, mode, uintptr(unsafe.Pointer(&activation))); err != nil {
			return err
		}
		if Return(activation) != Success {
			return &Error{Function: "nvmlDeviceSetMigMode", Code: Return(activation), Detail: "the mode changes only with the GPU idle"}
		}
		return nil
	}
	err := set(on)
	if err == nil {
		return nil
	}
	if is, _ := d.migMode(); is != on {
		_ = set(was) // withdraws what is pending; the first error tells the reason
	}
	return d.wrap(err)
}

// profiles lists the sizes of partition that the GPU can be cut into, the
// smallest first; none where it has no MIG. While MIG is off, some drivers tell
// nothing of places.
func (d *Device) profiles() []profile {
	if _, capable := d.migMode(); !capable {
		return nil
	}
	total, _ := d.memory()
	var all []profile
	for n := range uintptr(instanceProfiles) {
		var info profileInfo
		if d.l.call("nvmlDeviceGetGpuInstanceProfileInfo", d.handle, n, uintptr(unsafe.Pointer(&info))) != nil || info.slices == 0 || info.slices > maxInstances {
			continue
		}
		p := profile{id: info.id, compute: info.slices}
		p.Memory = hardware.Bytes(info.memoryMB) << 20
		p.Compute, p.Instances = int(info.slices), int(min(info.instances, maxInstances))
		p.Name = profileName(n, info, total)
		p.Starts, p.Slices = d.places(info.id)
		if p.Slices > 0 {
			all = append(all, p)
		}
	}
	slices.SortStableFunc(all, func(a, b profile) int {
		return cmp.Or(cmp.Compare(a.Slices, b.Slices), cmp.Compare(a.Compute, b.Compute))
	})
	return all
}

// profileName is the name that NVIDIA's tools give a profile: compute slices
// and the GPU's memory in GB times the eighths of it that the profile has, with
// a suffix for the variants by their engines. The number n is nvml.h's
// NVML_GPU_INSTANCE_PROFILE_*.
//
// Source: NVIDIA, Multi-Instance GPU user guide, "MIG device names".
func profileName(n uintptr, info profileInfo, total uint64) string {
	gb := (info.memoryMB + 1023) / 1024
	if total > 0 {
		const gib = 1 << 30
		eighths := math.Ceil(float64(info.memoryMB<<20) / float64(total) * 8)
		gb = uint64(math.Round(eighths / 8 * float64((total+gib-1)/gib)))
	}
	name := fmt.Sprintf("%dg.%dgb", info.slices, gb)
	switch n {
	case 0x7, 0x8:
		return name + "+me"
	case 0xa, 0xb, 0xc, 0x11:
		return name + "+gfx"
	case 0xd, 0xe:
		return name + "-me"
	case 0xf, 0x10:
		return name + "+me.all"
	}
	return name
}

// places are the first memory slices at which a profile may be, and how many
// slices it takes.
func (d *Device) places(profileID uint32) (starts []int, size int) {
	var at [maxInstances]placement
	count := uint32(len(at))
	if d.l.call("nvmlDeviceGetGpuInstancePossiblePlacements_v2", d.handle, uintptr(profileID), uintptr(unsafe.Pointer(&at)), uintptr(unsafe.Pointer(&count))) != nil {
		return nil, 0
	}
	for _, p := range at[:min(int(count), len(at))] {
		if p.start < maxInstances && p.size > 0 && p.size <= maxInstances-p.start {
			starts, size = append(starts, int(p.start)), int(p.size)
		}
	}
	slices.Sort(starts)
	return starts, size
}

// instance is a GPU instance with its compute instances.
type instance struct {
	handle  uintptr
	id      int
	start   int
	profile profile
	compute []computeInstance
}

type computeInstance struct {
	handle uintptr
	id     int
}

// instances lists what the GPU is cut into.
func (d *Device) instances() ([]instance, error) {
	if on, _ := d.migMode(); !on {
		return nil, nil
	}
	var all []instance
	for _, p := range d.profiles() {
		var handles [maxInstances]uintptr
		count := uint32(len(handles))
		err := d.l.call("nvmlDeviceGetGpuInstances", d.handle, uintptr(p.id), uintptr(unsafe.Pointer(&handles)), uintptr(unsafe.Pointer(&count)))
		if unsupported(err) {
			continue
		}
		if err != nil {
			return nil, d.wrap(err)
		}
		for _, h := range handles[:min(int(count), len(handles))] {
			var info instanceInfo
			if err := d.l.call("nvmlGpuInstanceGetInfo", h, uintptr(unsafe.Pointer(&info))); err != nil {
				return nil, d.wrap(err)
			}
			i := instance{handle: h, id: int(info.id), start: int(info.placement.start), profile: p}
			if i.compute, err = d.computeInstances(h); err != nil {
				return nil, d.wrap(err)
			}
			all = append(all, i)
		}
	}
	slices.SortFunc(all, func(a, b instance) int { return cmp.Compare(a.start, b.start) })
	return all, nil
}

func (d *Device) computeInstances(gpu uintptr) ([]computeInstance, error) {
	var all []computeInstance
	for n := range uintptr(computeProfiles) {
		var info computeProfileInfo
		const sharedEngines = 0
		if d.l.call("nvmlGpuInstanceGetComputeInstanceProfileInfo", gpu, n, sharedEngines, uintptr(unsafe.Pointer(&info))) != nil {
			continue
		}
		var handles [maxInstances]uintptr
		count := uint32(len(handles))
		err := d.l.call("nvmlGpuInstanceGetComputeInstances", gpu, uintptr(info.id), uintptr(unsafe.Pointer(&handles)), uintptr(unsafe.Pointer(&count)))
		if unsupported(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, h := range handles[:min(int(count), len(handles))] {
			var c computeInfo
			if err := d.l.call("nvmlComputeInstanceGetInfo_v2", h, uintptr(unsafe.Pointer(&c))); err != nil {
				return nil, err
			}
			all = append(all, computeInstance{h, int(c.id)})
		}
	}
	return all, nil
}

// partition makes a GPU instance of a profile at a place, with one compute
// instance over all of it. One that is there already is taken as it is. It
// makes all of it or nothing.
func (d *Device) partition(name string, start int) (i instance, err error) {
	before, err := d.instances()
	if err != nil {
		return instance{}, err
	}
	for _, i := range before {
		if i.profile.Name == name && i.start == start && len(i.compute) == 1 {
			return i, nil
		}
		if i.start < start+1 && start < i.start+i.profile.Slices {
			return instance{}, d.wrap(&Error{Code: InUse, Detail: fmt.Sprintf("slice %d belongs to the partition %s at %d", start, i.profile.Name, i.start)})
		}
	}
	wasOn, _ := d.migMode()
	if err := d.setMIG(true); err != nil {
		return instance{}, err
	}
	defer func() {
		if err != nil && !wasOn {
			err = errors.Join(err, d.setMIG(false))
		}
	}()
	// The profiles' places may be known only now.
	all := d.profiles()
	n := slices.IndexFunc(all, func(p profile) bool { return p.Name == name && slices.Contains(p.Starts, start) })
	if n < 0 {
		return instance{}, d.wrap(&Error{Code: InvalidArgument, Detail: fmt.Sprintf("it has no partition %s at slice %d", name, start)})
	}
	i = instance{start: start, profile: all[n]}
	where := placement{uint32(start), uint32(i.profile.Slices)}
	if err := d.l.call("nvmlDeviceCreateGpuInstanceWithPlacement", d.handle, uintptr(i.profile.id), uintptr(unsafe.Pointer(&where)), uintptr(unsafe.Pointer(&i.handle))); err != nil {
		return instance{}, d.wrap(err)
	}
	if err := d.complete(&i); err != nil {
		return instance{}, errors.Join(d.wrap(err), d.destroy(&i))
	}
	return i, nil
}

// complete gives a new GPU instance its one compute instance.
func (d *Device) complete(i *instance) error {
	var info instanceInfo
	if err := d.l.call("nvmlGpuInstanceGetInfo", i.handle, uintptr(unsafe.Pointer(&info))); err != nil {
		return err
	}
	i.id = int(info.id)
	for n := range uintptr(computeProfiles) {
		var c computeProfileInfo
		const sharedEngines = 0
		if d.l.call("nvmlGpuInstanceGetComputeInstanceProfileInfo", i.handle, n, sharedEngines, uintptr(unsafe.Pointer(&c))) != nil || c.slices != i.profile.compute {
			continue
		}
		var handle uintptr
		if err := d.l.call("nvmlGpuInstanceCreateComputeInstance", i.handle, uintptr(c.id), uintptr(unsafe.Pointer(&handle))); err != nil {
			return err
		}
		var made computeInfo
		if err := d.l.call("nvmlComputeInstanceGetInfo_v2", handle, uintptr(unsafe.Pointer(&made))); err != nil {
			i.compute = []computeInstance{{handle: handle}}
			return err
		}
		i.compute = []computeInstance{{handle, int(made.id)}}
		return nil
	}
	return &Error{Function: "nvmlGpuInstanceGetComputeInstanceProfileInfo", Code: NotFound}
}

// destroy removes an instance and what is in it.
func (d *Device) destroy(i *instance) error {
	for _, c := range i.compute {
		if err := d.l.call("nvmlComputeInstanceDestroy", c.handle); err != nil {
			return d.wrap(err)
		}
	}
	return d.wrap(d.l.call("nvmlGpuInstanceDestroy", i.handle))
}

// partitions are the instances as the map shows them. capabilities is
// /proc/driver/nvidia/capabilities, where the kernel driver lists their
// device nodes.
func (d *Device) partitions(capabilities string, all []instance) []hardware.Partition {
	minor, err := d.Minor()
	if err != nil {
		return nil
	}
	list := []hardware.Partition{}
	for _, i := range all {
		for _, c := range i.compute {
			p := hardware.Partition{ID: fmt.Sprintf("mig%d-%d", i.id, c.id), Profile: i.profile.Name, Memory: i.profile.Memory, Start: i.start, Slices: i.profile.Slices}
			dir := filepath.Join(capabilities, "gpu"+strconv.Itoa(minor), "mig", "gi"+strconv.Itoa(i.id))
			for _, access := range []string{"access", filepath.Join("ci"+strconv.Itoa(c.id), "access")} {
				if node := capabilityNode(filepath.Join(dir, access)); node != "" {
					p.DeviceNodes = append(p.DeviceNodes, node)
				}
			}
			if len(p.DeviceNodes) == 2 {
				list = append(list, p)
			}
		}
	}
	return list
}

// capabilityNode reads which device node stands for a capability.
func capabilityNode(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	text := make([]byte, 4096)
	n, err := f.Read(text)
	if err != nil {
		return ""
	}
	return hardware.MIGNode(string(text[:n]))
}
