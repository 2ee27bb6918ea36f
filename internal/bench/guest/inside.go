package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// guestMark is in the environment of a guest's init.
const guestMark = "OSCINE_GUEST"

// Inside reports whether this process is the init of a guest or descends from
// one.
func Inside() bool { return os.Getenv(guestMark) == "1" }

// Main is the main function of a guest's init: it mounts what a program
// expects, runs it, reports its exit status and switches the machine off.
func Main(run func() int) {
	status := 1
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
	} else {
		status = run()
	}
	fmt.Printf("\n%s %d\n", exitLine, status)
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stderr, "guest: power off:", err)
	}
	select {} // the end of init would be a panic of the kernel
}

// prepare mounts the kernel's file systems and delegates every controller.
func prepare() error {
	for _, m := range []struct{ kind, dir, data string }{
		{"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"devtmpfs", "/dev", ""}, {"tmpfs", "/tmp", ""}, {"tmpfs", "/run", ""},
		{"cgroup2", "/sys/fs/cgroup", "nsdelegate,memory_recursiveprot"}, {"debugfs", "/sys/kernel/debug", ""},
		{"bpf", "/sys/fs/bpf", ""}, {"tracefs", "/sys/kernel/tracing", ""},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, m.data); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	const root = "/sys/fs/cgroup"
	raw, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(raw)) {
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+name), 0o644); err != nil {
			return fmt.Errorf("delegate %s: %w", name, err)
		}
	}
	err = os.WriteFile("/sys/kernel/mm/transparent_hugepage/enabled", []byte("madvise"), 0o644)
	if errors.Is(err, os.ErrNotExist) { // a real-time kernel has none
		return nil
	}
	return err
}
