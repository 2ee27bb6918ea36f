package hardware

import (
	"path"
	"slices"
	"strings"
)

// permitted is what the kernel lets the reading process use, or the process
// that recorded the tree. An empty set restricts nothing.
type permitted struct {
	cpus, nodes Set
	// effective: cpus comes from a cpuset in effect, which holds only CPUs that
	// run. The affinity of a process may name others.
	effective bool
}

// contradicts reports whether the CPUs cannot be all that run.
func (p permitted) contradicts(online Set) bool {
	if p.cpus.Empty() {
		return false
	}
	if p.effective {
		return !p.cpus.In(online)
	}
	return !p.cpus.Meets(online)
}

// readPermitted reads the cpuset of the process's cgroup (version 2 or 1) or
// of a bare cpuset mount, and the process's own affinity.
func (s *scan) readPermitted() {
	p := &s.permitted
	p.cpus, p.effective = s.cpusetList("cpus")
	p.nodes, _ = s.cpusetList("mems")
	status, err := s.read("/proc/self/status", maxTable)
	if err != nil {
		return
	}
	p.cpus = narrowed(p.cpus, statusList(string(status), "Cpus_allowed_list:"))
	p.nodes = narrowed(p.nodes, statusList(string(status), "Mems_allowed_list:"))
}

// narrowed is what both sets allow; where one is unknown, or they exclude each
// other, the first that is known.
func narrowed(a, b Set) Set {
	both := a.And(b)
	switch {
	case !both.Empty():
		return both
	case !a.Empty():
		return a
	}
	return b
}

func statusList(status, key string) Set {
	_, rest, _ := strings.Cut(status, key)
	line, _, _ := strings.Cut(rest, "\n")
	set, _ := ParseList(strings.TrimSpace(line)) // a damaged line restricts nothing
	return set
}

// allowed finds the CPUs and nodes that work may use.
func (s *scan) allowed() {
	cpus, nodes := s.m.Online, s.nodeSet()
	restrict := func(known *Set, to Set, what string) {
		if to.Empty() {
			return
		}
		if both := known.And(to); !both.Empty() {
			*known = both
			return
		}
		s.gap("/proc/self/status", "%s %s may be used, and none of them is on this map: nothing is left out", what, to)
	}
	restrict(&cpus, s.permitted.cpus, "CPUs")
	restrict(&nodes, s.permitted.nodes, "nodes")
	s.m.Allowed, s.m.AllowedNodes = cpus, nodes
	for i := range s.m.CPUs {
		s.m.CPUs[i].Allowed = cpus.Has(s.m.CPUs[i].ID)
	}
	for i := range s.m.Nodes {
		s.m.Nodes[i].Allowed = nodes.Has(s.m.Nodes[i].ID)
	}
}

func (s *scan) nodeSet() Set {
	var set Set
	for _, n := range s.m.Nodes {
		set.Add(n.ID)
	}
	return set
}

// cpusetList reads what restricts "cpus" or "mems", and whether that is in
// effect, as against asked for. It looks at the process's cgroup, and up from
// there: a cgroup without the controller is bound by the one above. A process
// in a namespace may see its cgroup's name from outside, where the mount shows
// only what lies below; then the mount itself is its cgroup.
func (s *scan) cpusetList(what string) (set Set, effective bool) {
	mount, style := s.cpusetMount()
	if mount == "" {
		return Set{}, false
	}
	// Of version 1 the CPUs asked for count: those it calls effective are wrong
	// after CPUs came and went, and the kernel uses the others.
	file := map[string]string{"cgroup2": "cpuset." + what + ".effective", "cgroup": "cpuset." + what, "cpuset": what}[style]
	for name := path.Clean("/" + s.cgroupName()); ; name = path.Dir(name) {
		// An empty or unreadable file restricts nothing.
		if set, ok := s.list(path.Join(mount, name, file)); ok && !set.Empty() {
			return set, style == "cgroup2"
		}
		if name == "/" {
			return Set{}, false
		}
	}
}

// cpusetMount finds where cpusets are mounted and as what: "cgroup2",
// "cgroup" or "cpuset".
func (s *scan) cpusetMount() (mount, style string) {
	switch {
	case s.exists("/sys/fs/cgroup/cpuset.cpus.effective"):
		return "/sys/fs/cgroup", "cgroup2"
	case s.exists("/sys/fs/cgroup/cpuset/cpuset.cpus"):
		return "/sys/fs/cgroup/cpuset", "cgroup"
	case s.exists("/dev/cpuset/cpus"):
		return "/dev/cpuset", "cpuset"
	}
	mounts, err := s.read("/proc/mounts", maxTable)
	if err != nil {
		if mounts, err = s.read("/proc/self/mounts", maxTable); err != nil {
			return "", ""
		}
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		dir, options := f[1], strings.Split(f[3], ",")
		switch f[2] {
		case "cgroup2":
			controllers, _ := s.text(path.Join(dir, "cgroup.controllers"))
			if slices.Contains(strings.Fields(controllers), "cpuset") {
				return dir, "cgroup2"
			}
		case "cpuset":
			return dir, "cpuset"
		case "cgroup":
			if slices.Contains(options, "cpuset") {
				if slices.Contains(options, "noprefix") {
					return dir, "cpuset"
				}
				return dir, "cgroup"
			}
		}
	}
	return "", ""
}

// cgroupName is the cgroup or cpuset of the process that reads, or of the
// one that recorded the tree.
func (s *scan) cgroupName() string {
	if name, ok := s.text("/proc/self/cpuset"); ok && name != "" {
		return name
	}
	groups, _ := s.text("/proc/self/cgroup")
	for line := range strings.Lines(groups) {
		line = strings.TrimSpace(line)
		if _, name, ok := strings.Cut(line, ":cpuset:"); ok {
			return name
		}
		if name, ok := strings.CutPrefix(line, "0::"); ok {
			return name
		}
	}
	return ""
}
