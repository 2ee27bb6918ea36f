package hardware

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Recorded says what a recording holds.
type Recorded struct {
	Files int
	// LeftOut names what was read but not saved, and why.
	LeftOut []Gap
}

// Record writes an archive (.tar.zst) of everything that the map of the
// machine under root was read from, and nothing else: Discover over the
// archive gives the same map, but for interfaces that are named after their
// station address, which get another one. Serial numbers, UUIDs, station addresses and
// host names are not in it: nearly all are never read, and what slips through
// is left out and named.
func Record(root string, w io.Writer) (Recorded, error) {
	t, gaps, err := openTree(root)
	if err != nil {
		return Recorded{}, err
	}
	defer t.Close()
	return record(t, gaps, w)
}

func record(t tree, gaps []Gap, w io.Writer) (Recorded, error) {
	r := &recorder{tree: t, out: newMemory(), known: map[string]string{}}
	m := discover(r, gaps)
	r.cpuset(m)
	host, _ := os.Hostname()
	left := r.redact(host)
	r.out = nameless(r.out)
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return Recorded{}, fmt.Errorf("record: %w", err)
	}
	if err := r.out.pack(z); err != nil {
		return Recorded{}, fmt.Errorf("record: %w", err)
	}
	if err := z.Close(); err != nil {
		return Recorded{}, fmt.Errorf("record: %w", err)
	}
	return Recorded{Files: len(r.out.files), LeftOut: left}, nil
}

// recorder is a tree that remembers all that was asked of another.
type recorder struct {
	tree
	out   *memory
	known map[string]string // links already looked up, "" for none
}

// real is the path without links; it remembers the links on the way.
func (r *recorder) real(name string) string {
	at, rest, hops := "", strings.Split(relative(name), "/"), 0
	for len(rest) > 0 && hops <= maxLinks {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = strings.TrimSuffix(path.Dir("/"+at), "/")
			continue
		}
		at += "/" + part
		target, seen := r.known[at]
		if !seen {
			target, _ = r.tree.link(at)
			r.known[at] = target
		}
		if target == "" {
			continue
		}
		hops++
		r.out.symlink(at, target)
		if at = strings.TrimSuffix(path.Dir(at), "/"); path.IsAbs(target) {
			at = ""
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return "/" + strings.TrimPrefix(at, "/")
}

func (r *recorder) read(name string, limit int) ([]byte, error) {
	data, err := r.tree.read(name, limit)
	if err == nil {
		r.save(r.real(name), slices.Clone(data))
	}
	return data, err
}

// save keeps the longest of what was read of a file: one that was first asked
// for by name alone, or read in part, is read again for more.
func (r *recorder) save(name string, data []byte) {
	r.out.file(name, data)
	if known, ok := r.out.files[name]; ok && len(data) > len(known) {
		r.out.files[name] = data
	}
}

// ranges saves the first part of a configuration space alone: the extended
// part holds the device's serial number.
func (r *recorder) ranges(name string) (config, func(), error) {
	if data, err := r.tree.read(name, 256); err == nil {
		r.save(r.real(name), data)
	}
	return r.tree.ranges(name)
}

func (r *recorder) names(dir string) ([]string, error) {
	names, err := r.tree.names(dir)
	if err != nil {
		return nil, err
	}
	real := r.real(dir)
	r.out.dir(real)
	for _, name := range names {
		at := path.Join(real, name)
		if target, err := r.tree.link(at); err == nil {
			if !private(target) {
				r.out.symlink(at, target)
			}
		} else if _, err := r.tree.names(at); err == nil {
			r.out.dir(at)
		}
	}
	return names, nil
}

// private: the names of virtual devices reveal containers and tunnels.
func private(target string) bool {
	return strings.Contains(target, "/virtual/") && !strings.Contains(target, "/nvme-subsystem/")
}

func (r *recorder) link(name string) (string, error) {
	target, err := r.tree.link(name)
	if err == nil && !private(target) {
		r.out.symlink(path.Join(r.real(path.Dir(name)), path.Base(name)), target)
	}
	return target, err
}

func (r *recorder) exists(name string) bool {
	if !r.tree.exists(name) {
		return false
	}
	real := r.real(name)
	if _, err := r.tree.names(real); err == nil {
		r.out.dir(real)
	} else {
		r.save(real, nil)
	}
	return true
}

// cpuset replaces the names of cgroups, which reveal users and containers,
// by one name with the same effect.
func (r *recorder) cpuset(m *Machine) {
	for name := range r.out.files {
		if strings.HasPrefix(name, "/sys/fs/cgroup") || strings.HasPrefix(name, "/dev/cpuset") || strings.HasSuffix(name, "/mounts") ||
			strings.HasPrefix(name, "/proc/self") || strings.Contains(name, "/cpuset.") || strings.HasSuffix(name, "/cgroup.controllers") {
			delete(r.out.files, name)
		}
	}
	for name := range r.out.links {
		if strings.HasPrefix(name, "/proc/self") {
			delete(r.out.links, name)
		}
	}
	r.out.put("/proc/self/cpuset", "/recorded\n")
	r.out.put("/sys/fs/cgroup/cpuset.cpus.effective", m.Online.String()+"\n")
	r.out.put("/sys/fs/cgroup/recorded/cpuset.cpus.effective", m.Allowed.String()+"\n")
	r.out.put("/sys/fs/cgroup/recorded/cpuset.mems.effective", m.AllowedNodes.String()+"\n")
}

// put sets a file, whatever was there.
func (m *memory) put(name, content string) {
	m.dir(path.Dir(name))
	if _, ok := m.files[name]; !ok {
		m.dirs[path.Dir(name)] = append(m.dirs[path.Dir(name)], path.Base(name))
	}
	m.files[name] = []byte(content)
}

// secretNames are attributes whose value is one of a kind. The readers ask
// for none of them; this is the second lock.
func secretName(name string) bool {
	base := strings.ToLower(path.Base(name))
	for _, part := range []string{"serial", "uuid", "guid", "wwid", "nguid", "eui64", "unique_id", "asset_tag", "hostname", "machine-id"} {
		if strings.Contains(base, part) {
			return true
		}
	}
	return base == "address" && strings.Contains(name, "/net/")
}

// redact removes what must not leave the machine.
func (r *recorder) redact(host string) []Gap {
	station := regexp.MustCompile(`(?i)\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b`)
	unique := regexp.MustCompile(uuidPattern)
	var left []Gap
	for _, name := range slices.Sorted(maps.Keys(r.out.files)) {
		data := scrub(name, r.out.files[name])
		why := ""
		switch {
		case secretName(name):
			why = "names this one machine"
		case station.Match(data):
			why = "holds a station address"
		case unique.Match(data):
			why = "holds a UUID"
		case len(host) > 3 && bytes.Contains(data, []byte(host)):
			why = "holds the host's name"
		}
		if why != "" {
			left = append(left, Gap{Path: name, Reason: why})
			delete(r.out.files, name)
			continue
		}
		r.out.files[name] = data
	}
	return left
}

// scrub drops the lines of a file that name this one machine.
func scrub(name string, data []byte) []byte {
	keep := func(string) bool { return true }
	switch {
	case path.Base(name) == "uevent":
		keep = func(key string) bool {
			return key == "DEVNAME" || key == "DRIVER" || key == "PCI_ID" || key == "PCI_CLASS"
		}
	case name == "/proc/cpuinfo", strings.HasPrefix(name, "/proc/driver/nvidia"), path.Base(name) == "hwloc-nofile-info":
		keep = func(key string) bool {
			key = strings.ToLower(key)
			return !strings.Contains(key, "serial") && !strings.Contains(key, "uuid") && key != "hostname" && key != "osversion"
		}
	case name == "/proc/cmdline":
		var kept []string
		for _, arg := range strings.Fields(string(data)) {
			if shapesMap(arg) {
				kept = append(kept, arg)
			}
		}
		return []byte(strings.Join(kept, " ") + "\n")
	case strings.HasSuffix(name, ".xml"):
		return regexp.MustCompile(`(guid|host_hash)="[^"]*"`).ReplaceAll(data, []byte(`$1="0"`))
	case strings.Contains(name, "/kfd/topology/"):
		keep = func(key string) bool { return !strings.HasPrefix(key, "unique_id") }
	default:
		return data
	}
	var out []byte
	for line := range strings.Lines(string(data)) {
		if key := strings.TrimSpace(line[:max(0, strings.IndexAny(line+"=", ":="))]); keep(key) {
			out = append(out, line...)
		}
	}
	return out
}

const uuidPattern = `(?i)\b[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}\b`

// nameless is a tree without names that are one of a kind: an interface named
// after its station address gets another one, and what is named by a UUID, as
// a part of a device handed to a virtual machine is, is left out.
func nameless(m *memory) *memory {
	named := regexp.MustCompile(`\b(en|wl|ww|ib|sl)x[0-9a-f]{12}\b`)
	unique := regexp.MustCompile(uuidPattern)
	aliases := map[string]string{}
	other := func(text string) string {
		return named.ReplaceAllStringFunc(text, func(name string) string {
			if aliases[name] == "" {
				aliases[name] = fmt.Sprintf("%s%012x", name[:3], len(aliases)+1)
			}
			return aliases[name]
		})
	}
	out := newMemory()
	for _, name := range slices.Sorted(maps.Keys(m.dirs)) {
		if !unique.MatchString(name) {
			out.dir(other(name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.files)) {
		if !unique.MatchString(name) {
			out.put(other(name), other(string(m.files[name])))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.links)) {
		if target := m.links[name]; !unique.MatchString(name) && !unique.MatchString(target) {
			out.symlink(other(name), other(target))
		}
	}
	return out
}

// pack writes the tree as tar, always in the same order and without times.
func (m *memory) pack(w io.Writer) error {
	a := tar.NewWriter(w)
	write := func(h *tar.Header, data []byte) error {
		if err := a.WriteHeader(h); err != nil {
			return err
		}
		_, err := a.Write(data)
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(m.dirs)) {
		if name == "/" {
			continue
		}
		if err := write(&tar.Header{Name: "machine" + name + "/", Typeflag: tar.TypeDir, Mode: int64(fs.FileMode(0o755))}, nil); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.files)) {
		if err := write(&tar.Header{Name: "machine" + name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(m.files[name]))}, m.files[name]); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.links)) {
		if err := write(&tar.Header{Name: "machine" + name, Typeflag: tar.TypeSymlink, Linkname: m.links[name], Mode: 0o777}, nil); err != nil {
			return err
		}
	}
	return a.Close()
}
