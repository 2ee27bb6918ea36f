package container

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"
)

// cgroupRoot is where the kernel's control groups are mounted.
const cgroupRoot = "/sys/fs/cgroup"

// host is what this machine and its container runtime can do.
type host struct {
	cgroup2  bool
	userns   bool   // with id-mapped layers, without which it is of no use here
	idmap    *idmap // of the sources of mounts; nil if the runtime cannot
	lowerOOM bool   // may lower oom_score_adj
	files    uint64 // hard limit of open files
	missing  []string
}

func inspectHost(config Config) host {
	h := host{lowerOOM: hasCapability(unix.CAP_SYS_RESOURCE), files: 1024}
	h.inspectCgroups()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
		h.files = limit.Max
	}
	if !h.lowerOOM {
		h.miss("containers cannot be shielded from the out-of-memory killer: CAP_SYS_RESOURCE is missing; run oscined with it")
	}
	able := runtimeFeatures(config.RuntimePath)
	if l := able.Linux; l == nil || l.Seccomp == nil || l.Seccomp.Enabled == nil || !*l.Seccomp.Enabled {
		h.miss("system calls are not filtered: %s was built without seccomp; build it with libseccomp", config.RuntimePath)
	}
	probe := &idmap{}
	switch err := probe.check(config.Root); {
	case noUserNamespaces():
		h.miss("containers share the node's user ids: user namespaces are off; set sysctl user.max_user_namespaces to 10000 or more")
	case err != nil:
		h.miss("containers share the node's user ids: %s cannot be id-mapped (%v); use ext4, xfs or btrfs on Linux 5.19 or later", config.Root, err)
	default:
		h.userns = true
		if l := able.Linux; l != nil && l.MountExtensions != nil && l.MountExtensions.IDMap != nil && l.MountExtensions.IDMap.Enabled != nil && *l.MountExtensions.IDMap.Enabled {
			h.idmap = probe
		} else {
			h.miss("volumes change owners with their container: %s cannot id-map mounts; use crun 1.9, runc 1.2 or later", config.RuntimePath)
		}
	}
	return h
}

func (h *host) miss(format string, args ...any) {
	h.missing = append(h.missing, fmt.Sprintf(format, args...))
}

func (h *host) inspectCgroups() {
	var fs unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		h.cgroup2 = true
		have, _ := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
		for _, name := range []string{"cpu", "cpuset", "memory", "pids"} {
			if !strings.Contains(" "+strings.TrimSpace(string(have))+" ", " "+name+" ") {
				h.miss("limits of %s do not hold: the cgroup v2 controller is not available; enable it on the kernel's command line", name)
			}
		}
		return
	}
	h.miss("latency classes, memory pressure and core partitions do not hold: this host has no unified cgroup v2, so plain limits go through cgroup v1; boot it with systemd.unified_cgroup_hierarchy=1 or cgroup_no_v1=all")
	for _, name := range []string{"cpu", "cpuset", "memory", "pids"} {
		if _, err := os.Stat(filepath.Join(cgroupRoot, name)); err != nil {
			h.miss("limits of %s do not hold: its cgroup v1 controller is not mounted", name)
		}
	}
}

// runtimeFeatures asks an OCI runtime what it can do. A runtime too old to
// answer can do nothing special.
//
// Source: OCI runtime specification, features.md.
func runtimeFeatures(path string) features.Features {
	var f features.Features
	if out, err := exec.Command(path, "features").Output(); err == nil {
		_ = json.Unmarshal(out, &f) // as good as no answer
	}
	return f
}

func noUserNamespaces() bool {
	limit, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
	return err != nil || strings.TrimSpace(string(limit)) == "0"
}

func hasCapability(capability int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[capability/32].Effective&(1<<(capability%32)) != 0
}

// idmap knows which file systems can be id-mapped.
type idmap struct {
	mu    sync.Mutex
	known map[uint64]error // by device number
}

// check returns why the file system of path cannot be id-mapped, nil if it can.
func (i *idmap) check(path string) error {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if err, ok := i.known[stat.Dev]; ok {
		return err
	}
	if i.known == nil {
		i.known = map[uint64]error{}
	}
	err := tryIDMap(path)
	i.known[stat.Dev] = err
	return err
}

func tryIDMap(path string) error {
	ids := fmt.Sprintf("0:%d:%d", firstUID, uidsEach)
	userns, err := mount.GetUsernsFD(ids, ids)
	if err != nil {
		return err
	}
	defer userns.Close()
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open_tree: %w", err)
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("mount_setattr: %w", err)
	}
	return nil
}
