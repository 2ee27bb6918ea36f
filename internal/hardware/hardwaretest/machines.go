package hardwaretest

import (
	"fmt"
	"strconv"
)

const gib = 1 << 30

func ids(first, last int) []int {
	var out []int
	for i := first; i <= last; i++ {
		out = append(out, i)
	}
	return out
}

// Machines are all described machines by name.
func Machines() map[string]*Tree {
	return map[string]*Tree{
		"server-8xh100":   Server8GPU(),
		"server-8xmi300x": Server8MI300X(),
		"gb200-34-nodes":  GB200(),
		"laptop-hybrid":   HybridLaptop(),
		"coral-dev-board": CoralDevBoard(),
		"raspberry-hailo": RaspberryHailo(),
		"mainframe-s390x": Mainframe(),
		"server-quarrel":  Quarrel(),
	}
}

// socket is the CPUs of one package of a two-socket server with two threads.
func socket(n, cores int) []int {
	return append(ids(n*cores, (n+1)*cores-1), ids((n+2)*cores, (n+3)*cores-1)...)
}

// complexes adds, for each of four root complexes of a two-socket server, a
// root port and a switch, and calls fill for what hangs off the switch's
// downstream ports: fill(complex, port) returns the device of a port.
func (t *Tree) complexes(cores int, fill func(root, port int) (PCI, bool)) {
	buses := []int{0x10, 0x40, 0x80, 0xc0}
	for root, bus := range buses {
		node := root / 2
		cpus := socket(node, cores)
		port := PCI{Parent: fmt.Sprintf("pci0000:%02x", bus), Address: fmt.Sprintf("0000:%02x:01.0", bus), Class: "060400", Vendor: "8086", Device: "352a", Driver: "pcieport", Node: node, CPUs: cpus, GTs: "32.0", Width: 16}
		t.PCI(port)
		up := port
		up.Parent, up.Address, up.Vendor, up.Device = port.Path(), fmt.Sprintf("0000:%02x:00.0", bus+1), "1000", "c030"
		t.PCI(up)
		for p := range 4 {
			down := up
			down.Parent, down.Address = up.Path(), fmt.Sprintf("0000:%02x:%02x.0", bus+2, p)
			t.PCI(down)
			d, ok := fill(root, p)
			if !ok {
				continue
			}
			d.Parent, d.Address, d.Node, d.CPUs = down.Path(), fmt.Sprintf("0000:%02x:00.0", bus+3+p), node, cpus
			d.GTs, d.Width = "32.0", max(d.Width, 16)
			dir := t.PCI(d)
			switch d.Class {
			case "020700":
				t.nic(dir, root)
			case "010802":
				t.nvme(dir, root)
			}
		}
	}
}

func (t *Tree) nic(dir string, n int) {
	t.Filef(fmt.Sprintf("%s/net/ib%d/operstate", dir, n), "up")
	t.Filef(fmt.Sprintf("%s/net/ib%d/speed", dir, n), "400000")
	t.Link(fmt.Sprintf("/sys/class/net/ib%d", n), fmt.Sprintf("%s/net/ib%d", dir, n))
	t.Filef(fmt.Sprintf("%s/infiniband/mlx5_%d/node_type", dir, n), "1: CA")
	t.Link(fmt.Sprintf("/sys/class/infiniband/mlx5_%d", n), fmt.Sprintf("%s/infiniband/mlx5_%d", dir, n))
}

func (t *Tree) nvme(dir string, n int) {
	at := fmt.Sprintf("%s/nvme/nvme%d/nvme%dn1", dir, n, n)
	t.File(at+"/size", "7501476528")
	t.File(at+"/queue/rotational", "0")
	t.Link(fmt.Sprintf("/sys/class/block/nvme%dn1", n), at)
}

func (t *Tree) server(cores int) {
	t.describe(Processor{Packages: 2, CoresPerPackage: cores, Threads: 2, NodesPerPackage: 1, MemoryPerNode: 1024 * gib, L1: 48, L2: 2048, L3: 107520,
		Arch: "x86_64", Model: "Intel(R) Xeon(R) Platinum 8480C", Flags: "fpu sse4_2 avx2 fma avx512f avx512_vnni avx512_bf16 amx_tile amx_int8 amx_bf16 smep"})
	t.File("/sys/class/dmi/id/sys_vendor", "Described")
	for n := range 2 {
		t.File(nodeDir(n)+"/hugepages/hugepages-1048576kB/nr_hugepages", "64")
		t.File(nodeDir(n)+"/hugepages/hugepages-1048576kB/free_hugepages", "60")
	}
}

// Server8GPU is a two-socket server with eight H100 behind four PCIe
// switches, each with a 400 Gb/s adapter and an NVMe disk, and four
// NVSwitches. The link of gpu5 runs at x8.
func Server8GPU() *Tree {
	t := NewTree()
	t.server(32)
	t.File("/sys/class/dmi/id/product_name", "8-GPU server")
	t.complexes(32, func(root, port int) (PCI, bool) {
		switch port {
		case 2:
			return PCI{Class: "020700", Vendor: "15b3", Device: "1021", Driver: "mlx5_core"}, true
		case 3:
			return PCI{Class: "010802", Vendor: "144d", Device: "a824", Driver: "nvme"}, true
		}
		return PCI{Class: "030200", Vendor: "10de", Device: "2330", Driver: "nvidia"}, true
	})
	t.Filef("/sys/devices/pci0000:80/0000:80:01.0/0000:81:00.0/0000:82:01.0/0000:84:00.0/current_link_width", "8")
	gpu := 0
	for _, bus := range []int{0x10, 0x40, 0x80, 0xc0} {
		for port := range 2 {
			dir := fmt.Sprintf("/proc/driver/nvidia/gpus/0000:%02x:00.0", bus+3+port)
			t.Filef(dir+"/information", "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 16\nGPU UUID: \t GPU-00000000-0000-0000-0000-%012d\nDevice Minor: \t %d\nGPU Firmware: \t 550.54.15", gpu, gpu)
			gpu++
		}
	}
	for _, access := range []string{"gi1/access", "gi1/ci0/access"} {
		minor := 12 + len(access)
		t.Filef("/proc/driver/nvidia/capabilities/gpu0/mig/"+access, "DeviceFileMinor: %d\nDeviceFileMode: 292\nDeviceFileModify: 1", minor)
	}
	t.File("/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024")
	for n := range 4 {
		t.PCI(PCI{Parent: "pci0000:f0", Address: fmt.Sprintf("0000:f0:%02x.0", n), Class: "068000", Vendor: "10de", Device: "22a3", Driver: "nvidia-nvswitch", Node: 1, CPUs: socket(1, 32)})
	}
	return t
}

// Server8MI300X is a two-socket server with eight MI300X, all joined by xGMI.
func Server8MI300X() *Tree {
	t := NewTree()
	t.server(48)
	t.File("/sys/class/dmi/id/product_name", "8-GPU server (AMD)")
	t.complexes(48, func(root, port int) (PCI, bool) {
		switch port {
		case 2:
			return PCI{Class: "020700", Vendor: "15b3", Device: "1021", Driver: "mlx5_core"}, true
		case 3:
			return PCI{}, false
		}
		return PCI{Class: "120000", Vendor: "1002", Device: "74a1", Driver: "amdgpu"}, true
	})
	const kfd = "/sys/class/kfd/kfd/topology/nodes/"
	for cpu := range 2 {
		t.Filef(kfd+strconv.Itoa(cpu)+"/properties", "cpu_cores_count 96\nsimd_count 0")
	}
	gpu := 0
	for r, bus := range []int{0x10, 0x40, 0x80, 0xc0} {
		for port := range 2 {
			address := bus + 3 + port
			dir := fmt.Sprintf("/sys/devices/pci0000:%02x/0000:%02x:01.0/0000:%02x:00.0/0000:%02x:%02x.0/0000:%02x:00.0", bus, bus, bus+1, bus+2, port, address)
			t.Filef(dir+"/mem_info_vram_total", "%d", 192*gib)
			t.Filef(dir+"/mem_info_vram_used", "%d", (8+gpu)*gib)
			t.Filef(dir+"/gpu_busy_percent", "%d", 10*gpu)
			t.File(dir+"/available_compute_partition", "SPX, DPX, QPX, CPX")
			t.Node(dir, "drm", "card"+strconv.Itoa(gpu), "dri/card"+strconv.Itoa(gpu))
			t.Node(dir, "drm", "renderD"+strconv.Itoa(128+gpu), "dri/renderD"+strconv.Itoa(128+gpu))
			node := kfd + strconv.Itoa(2+gpu)
			t.Filef(node+"/properties", "simd_count 1216\nlocation_id %d\ndomain 0\nvendor_id 4098\ndevice_id 29857\ngfx_target_version 90402", address<<8)
			t.Filef(node+"/io_links/0/properties", "type 2\nnode_from %d\nnode_to %d\nweight 20\nmax_bandwidth 64000", 2+gpu, r/2)
			link := 1
			for other := range 8 {
				if other != gpu {
					t.Filef(fmt.Sprintf("%s/io_links/%d/properties", node, link), "type 11\nnode_from %d\nnode_to %d\nweight 15\nmin_bandwidth 64000\nmax_bandwidth 64000", 2+gpu, 2+other)
					link++
				}
			}
			gpu++
		}
	}
	return t
}

// GB200 is a two-processor Arm machine with four GPUs whose memory makes up
// 32 of its 34 NUMA nodes.
func GB200() *Tree {
	t := NewTree()
	t.describe(Processor{Packages: 2, CoresPerPackage: 72, Threads: 1, NodesPerPackage: 1, MemoryPerNode: 480 * gib, L1: 64, L2: 1024, L3: 116736,
		Arch: "aarch64", Model: "Neoverse-V2", Flags: ""})
	t.File("/proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp sve sve2 i8mm bf16\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f")
	t.File("/sys/class/dmi/id/sys_vendor", "Described")
	t.File("/sys/class/dmi/id/product_name", "GB200-like tray")
	t.File("/sys/devices/system/node/online", "0-33")
	for node := range 34 {
		if node >= 2 {
			bytes := uint64(0)
			if (node-2)%8 == 0 {
				bytes = 186 * gib
			}
			t.node(node, "00000000", bytes)
		}
		row := ""
		for other := range 34 {
			row += strconv.Itoa(superchip(node, other)) + " "
		}
		t.File(nodeDir(node)+"/distance", row)
	}
	for gpu := range 4 {
		domain := []string{"0008", "0009", "0018", "0019"}[gpu]
		cpus := ids(gpu/2*72, gpu/2*72+71)
		port := PCI{Parent: "pci" + domain + ":00", Address: domain + ":00:00.0", Class: "060400", Vendor: "10de", Device: "22b8", Driver: "pcieport", Node: gpu / 2, CPUs: cpus, GTs: "32.0", Width: 16}
		t.PCI(port)
		t.PCI(PCI{Parent: port.Path(), Address: domain + ":01:00.0", Class: "030200", Vendor: "10de", Device: "2941", Driver: "nvidia", Node: gpu / 2, CPUs: cpus, GTs: "32.0", Width: 16})
		dir := "/proc/driver/nvidia/gpus/" + domain + ":01:00.0"
		t.Filef(dir+"/information", "Model: \t\t NVIDIA GB200\nDevice Minor: \t %d\nGPU Firmware: \t 570.86.15", gpu)
		t.Filef(dir+"/numa_status", "Node:      %d\nStatus:    online\nAddress:   40000000000", 2+8*gpu)
	}
	t.File("/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  570.86.15  Release Build")
	return t
}

// superchip is the distance between nodes of a GB200-like machine.
func superchip(a, b int) int {
	home := func(n int) int {
		if n < 2 {
			return n
		}
		return (n - 2) / 16
	}
	switch {
	case a == b:
		return 10
	case home(a) == home(b):
		return 80
	}
	return 120
}

// HybridLaptop is a laptop with 6 performance cores of two threads, 8
// efficiency cores and 2 low-power ones, an integrated GPU and an NPU.
func HybridLaptop() *Tree {
	t := NewTree()
	t.File("/sys/devices/system/cpu/online", "0-21")
	all := ids(0, 21)
	for id := range 22 {
		dir := "/sys/devices/system/cpu/cpu" + strconv.Itoa(id)
		core, maxFreq, base := []int{id}, 2500000, 1000000
		var l2 []int
		switch {
		case id < 12:
			core = ids(id/2*2, id/2*2+1)
			l2, maxFreq, base = core, 4800000, 2400000
		case id < 20:
			l2, maxFreq, base = ids(12+(id-12)/4*4, 15+(id-12)/4*4), 3800000, 1800000
		default:
			l2 = ids(20, 21)
		}
		t.File(dir+"/topology/core_cpus", mask(core))
		t.File(dir+"/topology/package_cpus", mask(all))
		t.Filef(dir+"/topology/core_id", "%d", core[0]*4)
		t.File(dir+"/topology/physical_package_id", "0")
		t.cache(dir+"/cache/index0", 1, "Data", 48, core)
		t.cache(dir+"/cache/index1", 1, "Instruction", 64, core)
		t.cache(dir+"/cache/index2", 2, "Unified", 2048, l2)
		if id < 20 {
			t.cache(dir+"/cache/index3", 3, "Unified", 24576, ids(0, 19))
		}
		t.Filef(dir+"/cpufreq/cpuinfo_max_freq", "%d", maxFreq)
		t.Filef(dir+"/cpufreq/base_frequency", "%d", base)
	}
	t.File("/sys/devices/cpu_core/cpus", "0-11")
	t.File("/sys/devices/cpu_atom/cpus", "12-19")
	t.File("/sys/devices/cpu_lowpower/cpus", "20-21")
	t.File("/sys/devices/system/node/online", "0")
	t.node(0, mask(all), 32*gib)
	t.File(nodeDir(0)+"/distance", "10")
	t.Filef("/proc/meminfo", "MemTotal:       %d kB", 32*gib/1024)
	t.File("/proc/sys/kernel/arch", "x86_64")
	t.File("/proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Described Core Ultra 7\nflags\t\t: avx2 avx_vnni f16c fma")
	t.File("/sys/class/dmi/id/product_name", "Hybrid laptop")
	gpu := t.PCI(PCI{Parent: "pci0000:00", Address: "0000:00:02.0", Class: "030000", Vendor: "8086", Device: "7d55", Driver: "xe", Node: -1})
	t.Node(gpu, "drm", "card0", "dri/card0")
	t.Node(gpu, "drm", "renderD128", "dri/renderD128")
	npu := t.PCI(PCI{Parent: "pci0000:00", Address: "0000:00:0b.0", Class: "120000", Vendor: "8086", Device: "7d1d", Driver: "intel_vpu", Node: -1})
	t.Node(npu, "accel", "accel0", "accel/accel0")
	t.File("/sys/class/thermal/thermal_zone0/type", "x86_pkg_temp")
	t.File("/sys/class/thermal/thermal_zone0/temp", "47000")
	t.File("/sys/class/powercap/intel-rapl:0/name", "package-0")
	t.File("/sys/class/powercap/intel-rapl:0/constraint_0_power_limit_uw", "28000000")
	t.File("/sys/class/powercap/intel-rapl:0/constraint_0_max_power_uw", "64000000")
	t.File("/sys/devices/system/cpu/cpufreq/policy0/scaling_driver", "intel_pstate")
	t.File("/sys/devices/system/cpu/cpufreq/policy0/scaling_governor", "powersave")
	return t
}

// board writes a single-cluster Arm system on chip.
func (t *Tree) board(model, compatible, cpuinfo string, cores int, l1, l2, l3 int, bytes uint64) {
	t.describe(Processor{Packages: 1, CoresPerPackage: cores, Threads: 1, NodesPerPackage: 1, MemoryPerNode: bytes, L1: l1, L2: l2, L3: l3, Arch: "aarch64"})
	t.Remove("/sys/devices/system/node") // such kernels are built without NUMA
	t.File("/proc/cpuinfo", cpuinfo)
	t.Files["/sys/firmware/devicetree/base/model"] = model + "\x00"
	t.Files["/sys/firmware/devicetree/base/compatible"] = compatible + "\x00"
}

// CoralDevBoard is an i.MX 8M board with an Edge TPU on PCI Express.
func CoralDevBoard() *Tree {
	t := NewTree()
	t.board("Freescale i.MX8MQ Phanbell", "fsl,imx8mq-phanbell\x00fsl,imx8mq", "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd03", 4, 32, 1024, 0, 1*gib)
	for id := range 4 { // one L2 for all
		t.Filef(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/cache/index2/shared_cpu_map", id), "f")
	}
	dir := t.PCI(PCI{Parent: "platform/soc@0/33800000.pcie/pci0001:00/0001:00:00.0", Address: "0001:01:00.0", Class: "ff0000", Vendor: "1ac1", Device: "089a", Driver: "apex", Node: -1, GTs: "5.0", Width: 1})
	t.PCI(PCI{Parent: "platform/soc@0/33800000.pcie/pci0001:00", Address: "0001:00:00.0", Class: "060400", Vendor: "16c3", Device: "abcd", Driver: "pcieport", Node: -1, GTs: "5.0", Width: 1})
	t.Node(dir, "apex", "apex_0", "apex_0")
	return t
}

// RaspberryHailo is a Raspberry Pi 5 with a Hailo-8 and, on USB 2, a Coral
// accelerator; its VideoCore GPU has no driver loaded.
func RaspberryHailo() *Tree {
	t := NewTree()
	t.board("Raspberry Pi 5 Model B Rev 1.0", "raspberrypi,5-model-b\x00brcm,bcm2712", "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\nSerial\t\t: 00000000deadbeef", 4, 64, 512, 2048, 8*gib)
	port := PCI{Parent: "platform/axi/1000110000.pcie/pci0000:00", Address: "0000:00:00.0", Class: "060400", Vendor: "14e4", Device: "2712", Driver: "pcieport", Node: -1, GTs: "8.0", Width: 1}
	t.PCI(port)
	dir := t.PCI(PCI{Parent: port.Path(), Address: "0000:01:00.0", Class: "0b4000", Vendor: "1e60", Device: "2864", Driver: "hailo", Node: -1, GTs: "8.0", Width: 1})
	t.Node(dir, "hailo_chardev", "hailo0", "hailo0")
	usb := "/sys/devices/platform/axi/xhci-hcd.0/usb1/1-2"
	t.File(usb+"/idVendor", "18d1")
	t.File(usb+"/idProduct", "9302")
	t.File(usb+"/busnum", "1")
	t.File(usb+"/devnum", "7")
	t.File(usb+"/speed", "480")
	t.Link("/sys/bus/usb/devices/1-2", usb)
	gpu := "/sys/devices/platform/axi/1002000000.v3d"
	t.Files["/sys/firmware/devicetree/base/axi/v3d@2000000/compatible"] = "brcm,2712-v3d\x00"
	t.Files["/sys/firmware/devicetree/base/axi/v3d@2000000/status"] = "okay\x00"
	t.Link(gpu+"/of_node", "/sys/firmware/devicetree/base/axi/v3d@2000000")
	t.Link("/sys/bus/platform/devices/1002000000.v3d", gpu)
	return t
}
