package hardware

import (
	"path"
	"strconv"
	"strings"
)

// usbAccelerators finds accelerators on USB. A container reaches them through
// usbfs, so the node is /dev/bus/usb/BUS/DEVICE.
func (s *scan) usbAccelerators(table *identities) {
	const dir = "/sys/bus/usb/devices"
	for _, name := range s.dir(dir) {
		if strings.Contains(name, ":") { // an interface of a device
			continue
		}
		at := path.Join(dir, name)
		vendor, ok1 := s.text(at + "/idVendor")
		product, ok2 := s.text(at + "/idProduct")
		if !ok1 || !ok2 {
			continue
		}
		row := table.find("usb", vendor+":"+product, "")
		if row == nil {
			continue
		}
		a := Accelerator{Kind: row.kind, Vendor: row.vendor, Model: row.model, Bus: "usb", Address: name, Driver: "usb", Node: -1,
			LocalCPUs: s.m.Online, LocalNodes: s.nodeSet(), Memory: row.memory, Health: Health{State: "ok"}}
		s.fact(&a, "identity", vendor+":"+product, at+"/idProduct")
		s.fact(&a, "model", row.model, "table of identities: "+row.source)
		bus, ok1 := s.positive(at + "/busnum")
		number, ok2 := s.positive(at + "/devnum")
		if ok1 && ok2 {
			a.DeviceNodes = []string{"/dev/bus/usb/" + pad3(bus) + "/" + pad3(number)}
			s.fact(&a, "device node", a.DeviceNodes[0], at+"/devnum")
		}
		if speed, ok := s.positive(at + "/speed"); ok && speed < 5000 {
			a.Health = Health{State: "degraded", Reasons: []string{"USB link at " + strconv.Itoa(speed) + " Mb/s: use a USB 3 port"}}
		}
		s.usability(&a, row)
		s.m.Accelerators = append(s.m.Accelerators, a)
	}
}

func pad3(n int) string {
	text := strconv.Itoa(n)
	return strings.Repeat("0", max(0, 3-len(text))) + text
}

// treeAccelerators finds accelerators of a system on chip: platform devices
// whose device-tree node has a compatible of the table.
func (s *scan) treeAccelerators(table *identities) {
	const dir = "/sys/bus/platform/devices"
	seen := map[string]bool{}
	for _, name := range s.dir(dir) {
		at := path.Join(dir, name)
		compatible, ok := s.text(at + "/of_node/compatible")
		if !ok {
			continue
		}
		if status, ok := s.text(at + "/of_node/status"); ok && status != "okay" && status != "ok" {
			continue
		}
		for _, id := range strings.Split(compatible, "\x00") {
			if row := table.find("of", id, ""); row != nil {
				s.platformDevice(name, at, id, row)
				seen[name] = true
				break
			}
		}
	}
	s.unboundTreeNodes(table, seen)
}

func (s *scan) platformDevice(name, at, id string, row *identity) {
	a := Accelerator{Kind: row.kind, Vendor: row.vendor, Model: row.model, Bus: "platform", Address: name, Node: -1,
		LocalCPUs: s.m.Online, LocalNodes: s.nodeSet(), Memory: row.memory, Health: Health{State: "ok"}}
	s.fact(&a, "compatible", id, at+"/of_node/compatible")
	s.fact(&a, "model", row.model, "table of identities: "+row.source)
	if driver := s.target(at + "/driver"); driver != "" {
		a.Driver = path.Base(driver)
		s.fact(&a, "driver", a.Driver, at+"/driver")
	}
	a.DeviceNodes = s.deviceNodes(at)
	s.driverVersion(&a)
	s.usability(&a, row)
	s.m.Accelerators = append(s.m.Accelerators, a)
}

// maxTreeNodes bounds the walk through a device tree; boards have thousands.
const maxTreeNodes = 1 << 14

// unboundTreeNodes finds accelerators that the device tree describes but the
// kernel made no device for, so that a missing driver is reported.
func (s *scan) unboundTreeNodes(table *identities, seen map[string]bool) {
	const base = "/sys/firmware/devicetree/base"
	type at struct {
		dir   string
		depth int
	}
	for _, top := range []string{base + "/soc", base} {
		visited := 0
		for queue := []at{{top, 0}}; len(queue) > 0 && visited < maxTreeNodes; visited++ {
			here := queue[0]
			queue = queue[1:]
			for _, name := range s.dir(here.dir) {
				child := here.dir + "/" + name
				if name == "compatible" {
					s.treeNode(table, here.dir, seen)
				} else if here.depth < 4 && (strings.Contains(name, "@") || strings.HasPrefix(name, "soc") || strings.Contains(name, "npu") || strings.Contains(name, "bus")) {
					queue = append(queue, at{child, here.depth + 1})
				}
			}
		}
		if s.exists(base + "/soc") {
			return
		}
	}
}

func (s *scan) treeNode(table *identities, dir string, seen map[string]bool) {
	name, unit, _ := strings.Cut(path.Base(dir), "@")
	if seen[unit+"."+name] || seen[path.Base(dir)] {
		return
	}
	compatible, _ := s.text(dir + "/compatible")
	if status, ok := s.text(dir + "/status"); ok && status != "okay" && status != "ok" {
		return
	}
	for _, id := range strings.Split(compatible, "\x00") {
		if row := table.find("of", id, ""); row != nil {
			a := Accelerator{Kind: row.kind, Vendor: row.vendor, Model: row.model, Bus: "platform", Address: path.Base(dir), Node: -1,
				LocalCPUs: s.m.Online, LocalNodes: s.nodeSet(), Memory: row.memory, Health: Health{State: "ok"}}
			s.fact(&a, "compatible", id, dir+"/compatible")
			s.usability(&a, row)
			s.m.Accelerators = append(s.m.Accelerators, a)
			seen[path.Base(dir)] = true
			return
		}
	}
}

// fpgaRegions reads the FPGAs that the kernel's own framework manages; see
// Documentation/driver-api/fpga.
func (s *scan) fpgaRegions() {
	const dir = "/sys/class/fpga_manager"
	for _, name := range s.dir(dir) {
		at := path.Join(dir, name)
		if address := lastPCI(s.target(at)); address != "" && s.m.Accelerator(address) != nil {
			a := s.m.Accelerator(address)
			s.fpgaState(a, at)
			continue
		}
		model, _ := s.text(at + "/name")
		a := Accelerator{Kind: "fpga", Model: model, Bus: "platform", Address: name, Driver: "fpga_manager", Node: -1,
			LocalCPUs: s.m.Online, LocalNodes: s.nodeSet(), Health: Health{State: "ok"}}
		s.fact(&a, "model", model, at+"/name")
		s.fpgaState(&a, at)
		s.m.Accelerators = append(s.m.Accelerators, a)
	}
}

func (s *scan) fpgaState(a *Accelerator, at string) {
	state, ok := s.text(at + "/state")
	if !ok {
		return
	}
	s.fact(a, "state", state, at+"/state")
	if strings.Contains(state, "error") {
		a.Health = Health{State: "failed", Reasons: []string{"FPGA manager: " + state}}
	}
}
