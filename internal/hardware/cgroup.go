package hardware

import (
	"path"
	"slices"
	"strings"
)

// allowed finds the CPUs and nodes that work may use: the cpuset of the
// reading process's cgroup (version 2 or 1) or of a bare cpuset mount.
func (s *scan) allowed() {
	cpus, nodes := s.m.Online, s.nodeSet()
	if file := s.cpusetFiles(); file != nil {
		// An empty or unreadable file restricts nothing.
		if set, ok := s.list(file("cpus")); ok && !set.Empty() {
			cpus = cpus.And(set)
		}
		if set, ok := s.list(file("mems")); ok && !set.Empty() {
			nodes = nodes.And(set)
		}
	}
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

// cpusetFiles returns the path of the file that restricts "cpus" or "mems",
// or nil where nothing does.
func (s *scan) cpusetFiles() func(what string) string {
	mount, style := s.cpusetMount()
	name := s.cgroupName()
	if mount == "" || name == "" {
		return nil
	}
	return func(what string) string {
		switch style {
		case "cgroup2":
			return path.Join(mount, name, "cpuset."+what+".effective")
		case "cgroup":
			return path.Join(mount, name, "cpuset."+what)
		}
		return path.Join(mount, name, what)
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
