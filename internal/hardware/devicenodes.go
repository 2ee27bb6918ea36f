package hardware

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// checkNodes looks at the device nodes of the running machine: a node that is
// not there, or that this process may not open, keeps a device from use.
// Conveniences that are not there are left out.
func checkNodes(m *Machine, access func(path string, mode uint32) error) {
	s := &scan{m: m}
	for i := range m.Accelerators {
		a := &m.Accelerators[i]
		if len(a.Missing) > 0 {
			continue
		}
		a.DeviceNodes = slices.DeleteFunc(a.DeviceNodes, func(node string) bool {
			return strings.HasSuffix(node, "-tools") && access(node, unix.F_OK) != nil
		})
		for _, node := range a.DeviceNodes {
			switch err := access(node, unix.R_OK|unix.W_OK); err {
			case nil, unix.EROFS:
			case unix.ENOENT:
				why := fmt.Sprintf("%s does not exist: see the driver's messages in the kernel log", node)
				if node == "/dev/nvidia-uvm" {
					why = node + " does not exist: load the module nvidia_uvm"
				}
				a.Missing = append(a.Missing, why)
			default:
				a.Missing = append(a.Missing, fmt.Sprintf("this user may not open %s: join the group that owns it, or run as root", node))
			}
		}
		if len(a.Missing) > 0 {
			s.finish(a)
		}
	}
}
