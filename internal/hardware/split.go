package hardware

import (
	"fmt"
	"slices"
	"strconv"
)

const neuronDir = "/sys/class/neuron_device"

// neuron completes the devices of AWS' driver. It makes its device nodes without
// a parent, so that sysfs tells which belongs to which PCI function only where
// there is one of each; otherwise only its ioctl does. A device's NeuronCores
// share its node: the kernel cannot give them to different containers. See
// neuron_cdev.c and neuron_sysfs_metrics.c of aws-neuron-driver.
func (s *scan) neuron() {
	var mine []*Accelerator
	for i := range s.m.Accelerators {
		if a := &s.m.Accelerators[i]; a.Driver == "neuron" && len(a.DeviceNodes) == 0 {
			mine = append(mine, a)
		}
	}
	nodes := s.numbered(neuronDir, "neuron").IDs()
	if len(mine) == 0 || len(nodes) == 0 {
		return
	}
	for _, a := range mine {
		a.Missing = slices.DeleteFunc(a.Missing, func(why string) bool { return why == noDeviceNode(a.Driver) })
		if len(mine) > 1 || len(nodes) > 1 {
			a.Missing = append(a.Missing, fmt.Sprintf("its driver made %d device nodes, and sysfs does not tell which is this one's: a driver program can ask the driver, see docs/drivers.md", len(nodes)))
			continue
		}
		dir := neuronDir + "/neuron" + strconv.Itoa(nodes[0])
		a.DeviceNodes = []string{"/dev/neuron" + strconv.Itoa(nodes[0])}
		s.fact(a, "device node", a.DeviceNodes[0], dir)
		if n, ok := s.positive(dir + "/core_count"); ok {
			a.SubDevices = int(min(n, MaxIndex))
			s.fact(a, "neuron cores", strconv.Itoa(a.SubDevices), dir+"/core_count")
		}
		if name, ok := s.text(dir + "/info/architecture/device_name"); ok && name != "" {
			a.Model = name
			s.fact(a, "model", name, dir+"/info/architecture/device_name")
		}
	}
}

// xeTiles reads the tiles of an Intel GPU. They share one render node: programs
// choose among them, the kernel hands them out together. The attribute of their
// memory is that of older kernels' xe_tile_sysfs.c.
func (s *scan) xeTiles(a *Accelerator, dir string) {
	tiles := s.numbered(dir, "tile").IDs()
	if len(tiles) == 0 {
		return
	}
	a.SubDevices = len(tiles)
	s.fact(a, "tiles", strconv.Itoa(len(tiles)), dir)
	var sum Bytes
	for _, tile := range tiles {
		file := dir + "/tile" + strconv.Itoa(tile) + "/physical_vram_size_bytes"
		n, ok := s.positive(file)
		if !ok {
			return
		}
		sum += Bytes(n)
		s.fact(a, fmt.Sprintf("memory of tile %d", tile), Bytes(n).String(), file)
	}
	a.Memory = sum
}

// noDeviceNode says that a driver has bound and made nothing to open.
func noDeviceNode(driver string) string {
	return fmt.Sprintf("driver %s made no device node: see its messages in the kernel log", driver)
}
