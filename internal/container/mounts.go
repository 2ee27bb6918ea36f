package container

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// hostNetwork is Spec.NetNS for the node's own network.
const hostNetwork = "host"

// mounts lists what is mounted in the container, Spec's mounts taking the place
// of defaults with the same target.
func (p plan) mounts() ([]specs.Mount, error) {
	mounts := p.systemMounts()
	own := p.spec.Mounts
	if p.spec.Hold {
		own = append(slices.Clone(own), Mount{Source: p.holder, Target: holderTarget, ReadOnly: true})
	}
	for _, m := range own {
		added, err := p.bind(m)
		if err != nil {
			return nil, err
		}
		mounts = slices.DeleteFunc(mounts, func(old specs.Mount) bool { return old.Destination == added.Destination })
		mounts = append(mounts, added)
	}
	return mounts, nil
}

func (p plan) systemMounts() []specs.Mount {
	scratch := func(target string, options ...string) specs.Mount {
		if p.spec.Limits.MemoryBytes > 0 {
			// Its pages count against the container's limit; this is for df to tell.
			options = append(options, "size="+strconv.FormatInt(p.spec.Limits.MemoryBytes, 10))
		}
		return specs.Mount{Destination: target, Type: "tmpfs", Source: "tmpfs", Options: append(options, "nosuid", "nodev", "mode=1777")}
	}
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		scratch("/dev/shm", "noexec"),
		scratch("/tmp"),
		scratch("/run"),
	}
	if p.spec.NetNS == "" || p.uidBase == 0 {
		mounts = append(mounts, specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}})
	} else {
		// A user namespace may mount sysfs only with a network namespace of its own.
		mounts = append(mounts, specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "rprivate", "nosuid", "noexec", "nodev", "rro"}})
	}
	if p.host.cgroup2 {
		mounts = append(mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "ro"}})
	}
	for _, name := range etcFiles {
		mounts = append(mounts, specs.Mount{Destination: "/etc/" + name, Type: "bind", Source: filepath.Join(p.etc, name), Options: []string{"bind", "ro", "nosuid", "noexec", "nodev"}})
	}
	return mounts
}

// bind makes a mount of the node's files. Owners keep their numbers where the
// file system can be id-mapped; elsewhere they appear as nobody, and a volume
// is given to the container's range.
func (p plan) bind(m Mount) (specs.Mount, error) {
	fail := func(err error) (specs.Mount, error) {
		return specs.Mount{}, fmt.Errorf("mount %s at %s: %w", m.Source, m.Target, err)
	}
	target := cleanInside(m.Target)
	if !filepath.IsAbs(m.Source) || !filepath.IsAbs(m.Target) || target == "/" {
		return fail(errors.New("both paths must be absolute, and the target not the root"))
	}
	if m.Volume {
		if err := os.MkdirAll(m.Source, 0o750); err != nil {
			return fail(err)
		}
	}
	options := []string{"rbind", "rprivate", "nosuid", "nodev"}
	if m.ReadOnly {
		options = append(options, "ro")
	}
	result := specs.Mount{Destination: target, Type: "bind", Source: m.Source, Options: options}
	base := p.uidBase
	if p.uidBase != 0 && p.host.idmap != nil {
		if _, err := os.Lstat(m.Source); err != nil {
			return fail(err)
		}
		if p.host.idmap.check(m.Source) == nil {
			ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: p.uidBase, Size: uidsEach}}
			result.UIDMappings, result.GIDMappings = ids, ids
			base = 0
		}
	}
	if m.Volume {
		if err := giveIfEmpty(m.Source, int(base+p.user.UID), int(base+p.user.GID)); err != nil {
			return fail(err)
		}
	}
	return result, nil
}

// giveIfEmpty makes uid the owner of dir while nothing is in it.
func giveIfEmpty(dir string, uid, gid int) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(2)
	if err != nil && err != io.EOF {
		return err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == "lost+found" })
	if len(names) > 0 {
		return nil
	}
	return f.Chown(uid, gid)
}

// etcFiles are the files that every container finds in /etc.
var etcFiles = [...]string{"hostname", "hosts", "resolv.conf"}

// writeEtc writes etcFiles to dir.
func writeEtc(dir string, spec Spec) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	resolv := ""
	for _, server := range spec.DNS {
		resolv += "nameserver " + server + "\n"
	}
	if len(spec.DNS) == 0 && spec.NetNS != "" {
		if data, err := os.ReadFile("/etc/resolv.conf"); err == nil {
			resolv = resolvConf(string(data), spec.NetNS == hostNetwork)
		}
	}
	for name, text := range map[string]string{
		"hostname":    spec.Hostname + "\n",
		"hosts":       "127.0.0.1 localhost " + spec.Hostname + "\n::1 localhost " + spec.Hostname + "\n",
		"resolv.conf": resolv,
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
		if err := os.Chmod(file, 0o644); err != nil { // whatever the umask
			return err
		}
	}
	return nil
}

// resolvConf is the node's configuration as a container can use it: name
// servers on the node's own loopback answer only on its network.
func resolvConf(node string, hostNet bool) string {
	if hostNet {
		return node
	}
	var kept []string
	for line := range strings.Lines(node) {
		fields := strings.Fields(line)
		if len(fields) >= 2 && fields[0] == "nameserver" {
			if addr, err := netip.ParseAddr(fields[1]); err != nil || addr.IsLoopback() {
				continue
			}
		}
		kept = append(kept, line)
	}
	return strings.Join(kept, "")
}

// overRootFS mounts a layer over dir, which stays as it is.
func overRootFS(dir, work string, uidBase uint32) ([]mount.Mount, error) {
	if strings.ContainsAny(dir+work, ":,\\") {
		return nil, fmt.Errorf("root %s: overlayfs takes no colon, comma or backslash in paths", dir)
	}
	upper, scratch := filepath.Join(work, "fs"), filepath.Join(work, "work")
	for _, d := range []string{upper, scratch} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	// Only dir itself is id-mapped, not its whole parent: containerd maps the
	// folder that holds the last part of the path.
	options := []string{"lowerdir=" + dir + "/.", "upperdir=" + upper, "workdir=" + scratch}
	if uidBase != 0 {
		if err := os.Chown(upper, int(uidBase), int(uidBase)); err != nil {
			return nil, err
		}
		ids := idOption(uidBase)
		options = append(options, "uidmap="+ids, "gidmap="+ids)
	}
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: options}}, nil
}

// idOption writes a container's range as containerd does.
func idOption(base uint32) string { return fmt.Sprintf("0:%d:%d", base, uidsEach) }

func ownOOMScore() int {
	text, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0
	}
	score, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return score
}
