package hardware

import (
	"strconv"
	"strings"
)

// Load is how busy a machine is. Shares are from 0 to 1; -1 means unknown.
type Load struct {
	// CPUs is the busy share of each CPU between two readings.
	CPUs map[int]float64
	// Used is the memory in use of each NUMA node.
	Used map[int]Bytes
	// Devices is the load of the accelerators by ID.
	Devices map[string]DeviceLoad
	// Thermal are the temperatures, in the order of Machine.Thermal.
	Thermal []Zone
}

// DeviceLoad is how busy an accelerator is.
type DeviceLoad struct {
	Busy    float64 // share of time; -1 unknown
	Used    Bytes   // memory in use; 0 unknown
	Celsius float64 // 0 unknown
	Watts   float64 // 0 unknown
}

// Sampler reads the load of a machine again and again. It keeps nothing between
// readings, so several people may watch through one, each at their own pace;
// its calls must not overlap.
type Sampler struct{ tree tree }

// Reading is what the counters of a machine say at one moment.
type Reading struct {
	load Load
	cpus map[int]cpuTicks
}

type cpuTicks struct{ busy, total uint64 }

// NewSampler opens the machine under root for sampling; Close it after use.
func NewSampler(root string) (*Sampler, error) {
	t, _, err := openTree(root)
	if err != nil {
		return nil, err
	}
	return &Sampler{t}, nil
}

// Close releases what the sampler holds.
func (s *Sampler) Close() error { return s.tree.Close() }

// Read reads the counters now. told is what drivers' own programs report about
// devices, by ID; it stands over what sysfs has.
func (s *Sampler) Read(m *Machine, told map[string]DeviceLoad) Reading {
	l := Load{Used: map[int]Bytes{}, Devices: map[string]DeviceLoad{}}
	c := &scan{tree: s.tree, m: &Machine{Facts: map[string][]Fact{}}}
	for _, n := range m.Nodes {
		if used, ok := c.usedMemory(n.ID, n.Bytes, len(m.Nodes) == 1); ok {
			l.Used[n.ID] = used
		}
	}
	for i := range m.Accelerators {
		if a := &m.Accelerators[i]; a.Bus == "pci" && a.Health.State != "lost" {
			l.Devices[a.ID] = c.deviceLoad(a)
		}
	}
	for id, d := range told {
		l.Devices[id] = d
	}
	l.Thermal = c.temperatures(len(m.Thermal))
	return Reading{load: l, cpus: s.cpus()}
}

// Since is the load between an earlier reading and this one; since the machine
// started where the earlier is the zero Reading.
func (r Reading) Since(before Reading) Load {
	l := r.load
	l.CPUs = map[int]float64{}
	for id, now := range r.cpus {
		was := before.cpus[id]
		l.CPUs[id] = 0
		if now.total > was.total && now.busy >= was.busy {
			l.CPUs[id] = min(1, float64(now.busy-was.busy)/float64(now.total-was.total))
		}
	}
	return l
}

// temperatures rereads the thermal zones; most is how many the map has.
func (s *scan) temperatures(most int) []Zone {
	const zones = "/sys/class/thermal"
	var all []Zone
	for _, id := range s.numbered(zones, "thermal_zone").IDs() {
		at := zones + "/thermal_zone" + strconv.Itoa(id)
		if milli, ok := s.integer(at + "/temp"); ok && len(all) < most {
			z := Zone{Celsius: float64(milli) / 1000}
			z.Name, _ = s.text(at + "/type")
			all = append(all, z)
		}
	}
	return all
}

// cpus reads /proc/stat; see proc(5).
func (s *Sampler) cpus() map[int]cpuTicks {
	ticks := map[int]cpuTicks{}
	data, err := s.tree.read("/proc/stat", maxTable)
	if err != nil {
		return ticks
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 6 || len(f[0]) < 4 || !strings.HasPrefix(f[0], "cpu") {
			continue
		}
		id, err := strconv.Atoi(f[0][3:])
		if err != nil {
			continue
		}
		var now cpuTicks
		for i, field := range f[1:min(len(f), 9)] { // guest time is in user time already
			n, err := strconv.ParseUint(field, 10, 62)
			if err != nil {
				break
			}
			now.total += n
			if i != 3 && i != 4 { // idle, iowait
				now.busy += n
			}
		}
		ticks[id] = now
	}
	return ticks
}

// usedMemory reads a node's meminfo; a kernel without NUMA has the machine's.
func (s *scan) usedMemory(id int, total Bytes, only bool) (Bytes, bool) {
	text, ok := s.text(nodePath(id, "meminfo"))
	free := "MemFree:"
	if !ok && only {
		text, ok = s.text("/proc/meminfo")
		free = "MemAvailable:"
	}
	_, rest, found := strings.Cut(text, free)
	f := strings.Fields(rest)
	if !ok || !found || len(f) == 0 {
		return 0, false
	}
	kib, err := strconv.ParseUint(f[0], 10, 53)
	if err != nil || Bytes(kib)<<10 > total {
		return 0, false
	}
	used := total - Bytes(kib)<<10
	// Page cache is given back on demand.
	if _, rest, ok := strings.Cut(text, "FilePages:"); ok {
		if f := strings.Fields(rest); len(f) > 0 {
			if cache, err := strconv.ParseUint(f[0], 10, 53); err == nil {
				used -= min(used, Bytes(cache)<<10)
			}
		}
	}
	return used, true
}

// deviceLoad reads what a driver shows of a device's load in sysfs.
func (s *scan) deviceLoad(a *Accelerator) DeviceLoad {
	dir := pciDir + "/" + a.Function()
	l := DeviceLoad{Busy: -1}
	if status, _ := s.text(dir + "/power/runtime_status"); status == "suspended" {
		l.Busy = 0
		return l
	}
	if percent, ok := s.integer(dir + "/gpu_busy_percent"); ok {
		l.Busy = float64(percent) / 100
	}
	if used, ok := s.positive(dir + "/mem_info_vram_used"); ok {
		l.Used = Bytes(used)
	}
	for _, name := range s.dir(dir + "/hwmon") {
		at := dir + "/hwmon/" + name
		if milli, ok := s.positive(at + "/temp1_input"); ok {
			l.Celsius = float64(milli) / 1000
		}
		for _, file := range []string{"/power1_average", "/power1_input"} {
			if micro, ok := s.positive(at + file); ok {
				l.Watts = float64(micro) / 1e6
				break
			}
		}
	}
	return l
}
