package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/linux"
)

// mount is one early mount; the target is made when it is absent.
type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

// earlyMounts mounts what every later step reads.
func earlyMounts() []error {
	return mountAll([]mount{
		{"proc", "/proc", "proc", linux.Hardened, ""},
		{"sysfs", "/sys", "sysfs", linux.Hardened, ""},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
	})
}

// runtimeMounts are the file systems of PID 1 beyond the early ones.
func runtimeMounts() []mount {
	const private = unix.MS_NOSUID | unix.MS_NODEV
	return []mount{
		{"tmpfs", "/run", "tmpfs", private, "mode=0755,size=20%"},
		{"tmpfs", "/tmp", "tmpfs", private, "mode=1777,size=50%"},
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666"},
		{"tmpfs", "/dev/shm", "tmpfs", private, "mode=1777"},
		{"mqueue", "/dev/mqueue", "mqueue", linux.Hardened, ""},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", linux.Hardened, "nsdelegate,memory_recursiveprot"},
		{"bpf", "/sys/fs/bpf", "bpf", linux.Hardened, "mode=0700"},
		{"securityfs", "/sys/kernel/security", "securityfs", linux.Hardened, ""},
		{"tracefs", "/sys/kernel/tracing", "tracefs", linux.Hardened, ""},
	}
}

// mountAll leaves alone what is already mounted: stage 1 hands its mounts to
// PID 1, and PID 1 may start over.
func mountAll(mounts []mount) []error {
	var failed []error
	for _, m := range mounts {
		if isMountPoint(m.target) {
			continue
		}
		if err := m.do(); err != nil {
			failed = append(failed, err)
		}
	}
	return failed
}

// isMountPoint reports whether another file system begins at dir.
func isMountPoint(dir string) bool {
	var here, above unix.Stat_t
	if unix.Lstat(dir, &here) != nil || unix.Lstat(filepath.Dir(dir), &above) != nil {
		return false
	}
	return here.Dev != above.Dev
}

func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return fmt.Errorf("mount %s: %w", m.target, err)
	}
	err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data)
	if err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mount %s (%s) at %s: %w", m.source, m.kind, m.target, err)
	}
	return nil
}
