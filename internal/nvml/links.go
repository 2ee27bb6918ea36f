package nvml

import (
	"cmp"
	"slices"
	"unsafe"

	"oscine.dev/oscine/internal/hardware"
)

// Numbers of nvml.h.
const (
	maxNVLinks = 36

	remoteGPU, remoteSwitch = 0, 2

	fieldCommonSpeed = 90  // NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON
	fieldLinkSpeed   = 164 // NVML_FI_DEV_NVLINK_GET_SPEED; the scope is the link

	p2pRead, p2pNVLink = 0, 2
)

// fabric is the address of the NVSwitches that have no PCI address of their
// own here, as in a virtual machine: together they are one switch.
const fabric = "nvlink-fabric"

// nvlinks lists the active NVLinks of a GPU, joined by where they lead, and the
// NVLink version, 0 where there is none.
func (d *Device) nvlinks(known func(address string) bool) (links []hardware.Link, version int) {
	at := map[string]int{}
	common, _ := d.field(fieldCommonSpeed, 0)
	for n := range uint32(maxNVLinks) {
		var active, v uint32
		if d.l.call("nvmlDeviceGetNvLinkState", d.handle, uintptr(n), uintptr(unsafe.Pointer(&active))) != nil || active == 0 {
			continue
		}
		if d.l.call("nvmlDeviceGetNvLinkVersion", d.handle, uintptr(n), uintptr(unsafe.Pointer(&v))) == nil {
			version = max(version, generation(v))
		}
		remote := d.remote(n, known)
		if remote == "" {
			continue
		}
		speed, ok := d.field(fieldLinkSpeed, n)
		if !ok {
			speed = common
		}
		i, seen := at[remote]
		if !seen {
			i = len(links)
			at[remote] = i
			links = append(links, hardware.Link{A: d.Address, B: remote, Kind: "nvlink"})
		}
		links[i].Count++
		links[i].BytesPerSecond += float64(speed) * 1e6
	}
	slices.SortFunc(links, func(a, b hardware.Link) int { return cmp.Compare(a.B, b.B) })
	return links, version
}

// generation is the whole number of nvml.h's NVML_NVLINK_VERSION_*, which count
// 1.0, 2.0, 2.2, 3.0, 3.1, 4.0, 5.0.
func generation(v uint32) int {
	names := [...]int{0, 1, 2, 2, 3, 3, 4, 5, 6}
	if int(v) >= len(names) {
		return 0
	}
	return names[v]
}

// remote is the PCI address of the other end of a link.
func (d *Device) remote(link uint32, known func(string) bool) string {
	kind := uint32(remoteGPU)
	_ = d.l.call("nvmlDeviceGetNvLinkRemoteDeviceType", d.handle, uintptr(link), uintptr(unsafe.Pointer(&kind))) // with old drivers all are GPUs
	var pci pciInfo
	err := d.l.call("nvmlDeviceGetNvLinkRemotePciInfo_v2", d.handle, uintptr(link), uintptr(unsafe.Pointer(&pci)))
	address := pci.address()
	switch {
	case err == nil && known(address):
		return address
	case kind == remoteSwitch:
		return fabric
	}
	return ""
}

// levels of nvmlGpuTopologyLevel_t, in the proximities of the map.
func proximity(level uint32) (hardware.Proximity, bool) {
	p, ok := map[uint32]hardware.Proximity{0: hardware.Switch, 10: hardware.Switch, 20: hardware.Switches, 30: hardware.Root, 40: hardware.InNode, 50: hardware.Across}[level]
	return p, ok
}

// pair tells how two GPUs are joined over PCI, and whether one reads the
// other's memory.
func (d *Device) pair(other *Device) (hardware.Pair, bool) {
	var level, status uint32
	if d.l.call("nvmlDeviceGetTopologyCommonAncestor", d.handle, other.handle, uintptr(unsafe.Pointer(&level))) != nil {
		return hardware.Pair{}, false
	}
	p, ok := proximity(level)
	if !ok {
		return hardware.Pair{}, false
	}
	pair := hardware.Pair{A: d.Address, B: other.Address, Proximity: p.String()}
	for _, way := range []uintptr{p2pRead, p2pNVLink} {
		status = 1
		if d.l.call("nvmlDeviceGetP2PStatus", d.handle, other.handle, way, uintptr(unsafe.Pointer(&status))) == nil && status == 0 {
			pair.PeerToPeer = true
		}
	}
	return pair, true
}
