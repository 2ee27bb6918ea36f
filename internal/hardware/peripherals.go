package hardware

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// Interface is a network interface on real hardware.
type Interface struct {
	Name    string `json:"name"`
	Address string `json:"address,omitempty"` // PCI address of its device
	Driver  string `json:"driver,omitempty"`
	// Mbps is the link's speed in megabits a second, 0 where down or unknown.
	Mbps  int    `json:"mbps,omitempty"`
	State string `json:"state,omitempty"` // up, down, unknown
	// RDMA names the RDMA device of the same function.
	RDMA string `json:"rdma,omitempty"`
	Node int    `json:"node"` // -1 where unknown
}

// Disk is a block device on real hardware.
type Disk struct {
	Name    string `json:"name"`
	Size    Bytes  `json:"size"`
	Address string `json:"address,omitempty"` // PCI address of its controller
	Model   string `json:"model,omitempty"`
	Spins   bool   `json:"spins,omitempty"` // a rotating disk
	Node    int    `json:"node"`            // -1 where unknown
}

// Zone is a thermal zone.
type Zone struct {
	Name    string  `json:"name"`
	Celsius float64 `json:"celsius"`
	// Critical is the trip point at which the kernel shuts down, 0 unknown.
	Critical float64 `json:"critical,omitempty"`
}

// PowerLimit is a RAPL power domain.
type PowerLimit struct {
	Name  string  `json:"name"`
	Watts float64 `json:"watts"` // long-term limit
	// MaxWatts is the highest limit that can be set, 0 where unknown.
	MaxWatts float64 `json:"maxWatts,omitempty"`
}

// Frequency is how the kernel drives the CPU clocks.
type Frequency struct {
	Driver    string   `json:"driver"`
	Governor  string   `json:"governor"`
	Governors []string `json:"governors,omitempty"`
	// EnergyPreference is intel_pstate's or amd-pstate's hint.
	EnergyPreference string `json:"energyPreference,omitempty"`
}

func (s *scan) nodeOfDevice(address string) int {
	if d := s.m.Device(address); d != nil {
		if d.Node >= 0 {
			return d.Node
		}
		if d.LocalNodes.Len() == 1 {
			return d.LocalNodes.First()
		}
	}
	return -1
}

// interfaces lists network interfaces; addresses of stations are not read.
func (s *scan) interfaces() {
	const dir = "/sys/class/net"
	for _, name := range s.dir(dir) {
		at := path.Join(dir, name)
		real := s.target(at)
		if real == "" {
			real = s.target(at + "/device")
		}
		if strings.Contains(real, "/virtual/") || !strings.Contains(real, "/devices/") {
			continue
		}
		i := Interface{Name: name, Address: lastPCI(real)}
		i.Node = s.nodeOfDevice(i.Address)
		if d := s.m.Device(i.Address); d != nil {
			i.Driver = d.Driver
			if rdma := s.dir(pciDir + "/" + i.Address + "/infiniband"); len(rdma) > 0 {
				i.RDMA = rdma[0]
			}
		}
		i.State, _ = s.text(at + "/operstate")
		if i.State != "down" { // reading the speed of a link that is down is an error
			if data, err := s.read(at+"/speed", maxAttribute); err == nil {
				if n, err := strconv.Atoi(firstLine(string(data))); err == nil && n > 0 {
					i.Mbps = n
				}
			}
		}
		if i.Mbps == 0 && i.RDMA != "" && i.State != "down" {
			i.Mbps = s.rdmaRate("/sys/class/infiniband/" + i.RDMA)
		}
		s.m.Interfaces = append(s.m.Interfaces, i)
	}
	s.rdmaOnly()
}

// rdmaOnly adds RDMA devices without a network interface (InfiniBand without
// IPoIB, EFA).
func (s *scan) rdmaOnly() {
	const dir = "/sys/class/infiniband"
	for _, name := range s.dir(dir) {
		at := path.Join(dir, name)
		address := lastPCI(s.target(at))
		if address == "" || slices.ContainsFunc(s.m.Interfaces, func(i Interface) bool { return i.Address == address && i.RDMA != "" }) {
			continue
		}
		i := Interface{Name: name, Address: address, RDMA: name, Node: s.nodeOfDevice(address)}
		if d := s.m.Device(address); d != nil {
			i.Driver = d.Driver
		}
		i.Mbps = s.rdmaRate(at)
		if state, ok := s.text(at + "/ports/1/state"); ok {
			i.State = "down"
			if strings.Contains(state, "ACTIVE") {
				i.State = "up"
			}
		}
		s.m.Interfaces = append(s.m.Interfaces, i)
	}
}

// rdmaRate reads the speed of an RDMA device's first port in Mb/s, such as
// "200 Gb/sec (4X HDR)"; 0 where unknown.
func (s *scan) rdmaRate(at string) int {
	rate, _ := s.text(at + "/ports/1/rate")
	number, _, _ := strings.Cut(rate, " ")
	gbps, err := strconv.ParseFloat(number, 64)
	if err != nil || !(gbps > 0 && gbps < 1e5) {
		return 0
	}
	return int(gbps * 1000)
}

// disks lists whole block devices on a bus; serial numbers are not read.
func (s *scan) disks() {
	const dir = "/sys/class/block"
	for _, name := range s.dir(dir) {
		at := path.Join(dir, name)
		real := s.target(at)
		behind := lastPCI(real)
		if strings.Contains(real, "/nvme-subsystem/") {
			behind = s.nvmeController(path.Dir(real))
		} else if real == "" || strings.Contains(real, "/virtual/") {
			continue
		}
		if s.exists(at + "/partition") {
			continue
		}
		d := Disk{Name: name, Address: behind}
		d.Node = s.nodeOfDevice(d.Address)
		if sectors, ok := s.positive(at + "/size"); ok {
			d.Size = Bytes(sectors) * 512 // always in units of 512 bytes
		}
		if d.Size == 0 {
			continue
		}
		d.Model, _ = s.text(at + "/device/model")
		// The kernel takes every virtio disk for one that spins.
		if spins, ok := s.integer(at + "/queue/rotational"); ok && !strings.Contains(real, "/virtio") {
			d.Spins = spins == 1
		}
		s.m.Disks = append(s.m.Disks, d)
	}
}

// nvmeController is the PCI address of the first controller of an NVMe
// subsystem: with multipath the kernel hangs the disk below the subsystem.
func (s *scan) nvmeController(subsystem string) string {
	for _, name := range s.dir(subsystem) {
		if strings.HasPrefix(name, "nvme") {
			if address := lastPCI(s.target(path.Join(subsystem, name))); address != "" {
				return address
			}
		}
	}
	return ""
}

// thermal reads temperatures, power limits and how clocks are driven.
func (s *scan) thermal() {
	const zones = "/sys/class/thermal"
	for _, id := range s.numbered(zones, "thermal_zone").IDs() {
		at := zones + "/thermal_zone" + strconv.Itoa(id)
		data, err := s.read(at+"/temp", maxAttribute) // absent sensors fail to read
		if err != nil {
			continue
		}
		millis, err := strconv.Atoi(firstLine(string(data)))
		if err != nil {
			continue
		}
		z := Zone{Celsius: float64(millis) / 1000}
		z.Name, _ = s.text(at + "/type")
		for trip := range 12 {
			kind, ok := s.text(at + "/trip_point_" + strconv.Itoa(trip) + "_type")
			if !ok {
				break
			}
			if limit, ok := s.integer(at + "/trip_point_" + strconv.Itoa(trip) + "_temp"); ok && kind == "critical" {
				z.Critical = float64(limit) / 1000
			}
		}
		s.m.Thermal = append(s.m.Thermal, z)
	}
	s.power()
	const policy = cpuDir + "/cpufreq/policy0"
	if driver, ok := s.text(policy + "/scaling_driver"); ok {
		f := &Frequency{Driver: driver}
		f.Governor, _ = s.text(policy + "/scaling_governor")
		list, _ := s.text(policy + "/scaling_available_governors")
		f.Governors = strings.Fields(list)
		f.EnergyPreference, _ = s.text(policy + "/energy_performance_preference")
		s.m.Frequency = f
	}
}

// power reads the RAPL domains; see Documentation/power/powercap.
func (s *scan) power() {
	const dir = "/sys/class/powercap"
	for _, name := range s.dir(dir) {
		at := path.Join(dir, name)
		if !strings.Contains(name, ":") {
			continue
		}
		limit, ok := s.positive(at + "/constraint_0_power_limit_uw")
		if !ok {
			continue
		}
		p := PowerLimit{Watts: float64(limit) / 1e6}
		p.Name, _ = s.text(at + "/name")
		if most, ok := s.positive(at + "/constraint_0_max_power_uw"); ok {
			p.MaxWatts = float64(most) / 1e6
		}
		s.m.Power = append(s.m.Power, p)
	}
}
