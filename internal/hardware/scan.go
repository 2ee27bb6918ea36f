package hardware

import (
	"bytes"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// scan is one discovery under way: the tree it reads and the map it fills.
type scan struct {
	tree
	m    *Machine
	node map[int]int // node number -> index in m.Nodes
	cpu  map[int]int // CPU number -> index in m.CPUs

	permitted permitted

	lists     bool // siblings are given as lists, not as masks
	lastCache int  // highest number of a cache of the CPUs read so far
	// computeUnits: an AMD processor of family 15h or 16h, whose "threads"
	// are cores that share a front end, each with a core_id of its own.
	computeUnits bool
	// nearMemory: a Xeon Phi (Knights Landing or Mill), whose memory-only
	// nodes are stacked memory within the package.
	nearMemory bool
	// linkAttributes: the kernel (4.13 and later) has attributes for PCI
	// links, so a device without them has no link.
	linkAttributes bool
	// fakeNodes: numa=fake= on the kernel command line; the firmware's
	// tables then list other nodes than the kernel shows.
	fakeNodes bool
}

func newScan(t tree, gaps []Gap) *scan {
	return &scan{
		tree: t,
		m:    &Machine{Schema: Schema, Gaps: gaps, Facts: map[string][]Fact{}},
		node: map[int]int{},
		cpu:  map[int]int{},
	}
}

func (s *scan) done() *Machine {
	if len(s.m.Gaps) >= maxGaps {
		s.m.Gaps = append(s.m.Gaps[:maxGaps], Gap{Path: "/", Reason: "more gaps follow that are not listed"})
	}
	return s.m.tidy()
}

// gap notes that something at a path could not be read or believed.
func (s *scan) gap(path, format string, args ...any) {
	if len(s.m.Gaps) <= maxGaps {
		s.m.Gaps = append(s.m.Gaps, Gap{Path: path, Reason: fmt.Sprintf(format, args...)})
	}
}

// text reads an attribute without the blanks around it. A missing file is no
// gap: most attributes exist only on some machines. A forbidden one is.
func (s *scan) text(name string) (string, bool) {
	data, err := s.read(name, maxAttribute)
	if err != nil {
		if !absent(err) {
			s.gap(name, "%s", reason(err))
		}
		return "", false
	}
	return string(bytes.Trim(data, " \t\r\n\x00")), true
}

// integer reads a decimal attribute; what follows the digits is its unit.
func (s *scan) integer(name string) (int, bool) {
	text, ok := s.text(name)
	if !ok {
		return 0, false
	}
	end := 0
	for end < len(text) && (text[end] >= '0' && text[end] <= '9' || end == 0 && text[end] == '-') {
		end++
	}
	n, err := strconv.Atoi(text[:end])
	if err != nil {
		if text != "" {
			s.gap(name, "%q is not a number", clip(text))
		}
		return 0, false
	}
	return n, true
}

// positive is integer for values that mean nothing unless above zero.
func (s *scan) positive(name string) (int, bool) {
	n, ok := s.integer(name)
	return n, ok && n > 0
}

// hex reads a hexadecimal attribute such as a PCI vendor, 0 where missing.
func (s *scan) hex(name string) uint64 {
	text, ok := s.text(name)
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(text, "0x"), 16, 64)
	if err != nil {
		s.gap(name, "%q is not a hexadecimal number", clip(text))
		return 0
	}
	return n
}

// mask reads a CPU mask attribute.
func (s *scan) mask(name string) (Set, bool) { return s.set(name, ParseMask) }

// list reads a CPU list attribute.
func (s *scan) list(name string) (Set, bool) { return s.set(name, ParseList) }

func (s *scan) set(name string, parse func(string) (Set, error)) (Set, bool) {
	data, err := s.read(name, maxTable) // masks of many CPUs pass a page
	if err != nil {
		if !absent(err) {
			s.gap(name, "%s", reason(err))
		}
		return Set{}, false
	}
	set, err := parse(string(data))
	if err != nil {
		s.gap(name, "%s", err)
		return Set{}, false
	}
	return set, true
}

// dir lists a directory; a missing one is empty.
func (s *scan) dir(name string) []string {
	names, err := s.names(name)
	if err != nil {
		if !absent(err) {
			s.gap(name, "%s", reason(err))
		}
		return nil
	}
	return names
}

// target is the cleaned path within the tree that a link leads to, one step.
func (s *scan) target(name string) string {
	to, err := s.link(name)
	if err != nil {
		return ""
	}
	if !path.IsAbs(to) {
		to = path.Join(path.Dir(name), to)
	}
	return path.Clean(to)
}

// numbered lists the entries of a directory named prefix + number, by number.
func (s *scan) numbered(dir, prefix string) Set {
	var set Set
	for _, name := range s.dir(dir) {
		digits, ok := strings.CutPrefix(name, prefix)
		if id, err := strconv.Atoi(digits); ok && err == nil && digits[0] >= '0' && digits[0] <= '9' {
			set.Add(id)
		}
	}
	return set
}

// reason is an error's text without the path, which the gap already names.
func reason(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		return text[i+2:]
	}
	return text
}
