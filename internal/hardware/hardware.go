package hardware

import (
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// maxGaps bounds the list of gaps that a hostile tree can cause.
const maxGaps = 256

// ErrSchema says that a JSON document is not a map that this version reads.
var ErrSchema = errors.New("not a hardware map of " + Schema)

// Discover reads the machine under root: "/" for the running one, a directory
// that holds sys and proc of another, or an archive of such a directory
// (.tar, .tar.gz, .tar.bz2, .tar.xz, .tar.zst). It fails only where root
// cannot be opened at all; what is missing or damaged below it is named in
// Machine.Gaps.
func Discover(root string) (*Machine, error) {
	t, gaps, err := openTree(root)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	m := discover(t, gaps)
	if root == "/" {
		checkNodes(m, unix.Access)
	}
	return m, nil
}

// discover runs every reader over a tree. Their order matters: devices need
// the PCI tree, PCI needs the nodes, nodes need the CPUs.
func discover(t tree, gaps []Gap) *Machine {
	s := newScan(t, gaps)
	s.system()
	s.readPermitted()
	s.cpus()
	s.nodes()
	s.allowed()
	s.kinds()
	s.pci()
	s.accelerators()
	s.cloudTopology()
	for i := range s.m.Accelerators {
		s.finish(&s.m.Accelerators[i])
	}
	s.interfaces()
	s.disks()
	s.thermal()
	return s.done()
}

// Decode reads the JSON document of a Machine, as Encode and the node's API
// write it. It returns ErrSchema for a document of another schema.
func Decode(data []byte) (*Machine, error) {
	var m Machine
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("decode hardware map: %w", err)
	}
	if m.Schema != Schema {
		return nil, fmt.Errorf("schema %q: %w", clip(m.Schema), ErrSchema)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("decode hardware map: %w", err)
	}
	return m.tidy(), nil
}

// check refuses a map whose parts do not fit together, because the printers rely
// on it.
func (m *Machine) check() error {
	for _, c := range m.CPUs {
		if c.Core < 0 || c.Core >= len(m.Cores) || c.Kind < -1 || c.Kind >= len(m.Kinds) {
			return fmt.Errorf("cpu %d: core %d or kind %d is not on the map", c.ID, c.Core, c.Kind)
		}
	}
	for _, c := range m.Cores {
		if c.Kind < -1 || c.Kind >= len(m.Kinds) {
			return fmt.Errorf("core %d: kind %d is not on the map", c.ID, c.Kind)
		}
	}
	for _, c := range m.Caches {
		if c.Kind == MemorySide && c.Node == nil {
			return errors.New("a memory-side cache without its node")
		}
	}
	for _, n := range m.Nodes {
		if n.Distance != nil && len(n.Distance) != len(m.Nodes) {
			return fmt.Errorf("node %d has %d distances to %d nodes", n.ID, len(n.Distance), len(m.Nodes))
		}
	}
	for _, d := range m.PCI {
		if d.Degraded && (d.Link == nil || d.Best == nil) {
			return fmt.Errorf("PCI device %s: degraded without a link", clip(d.Address))
		}
	}
	return nil
}

// Encode writes the JSON document of m, indented for people.
func Encode(m *Machine) ([]byte, error) {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode hardware map: %w", err)
	}
	return append(data, '\n'), nil
}
