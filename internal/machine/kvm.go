package machine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"oscine.dev/oscine/internal/debian"
)

// probeTimeout is how long a kernel gets to reach its end under KVM; a working
// one takes a second or two.
const probeTimeout = 20 * time.Second

// kernelStarted is what a kernel without a root file system prints when it has
// come through all of its own start.
const kernelStarted = "Unable to mount root fs"

// chooseAccel returns "kvm" where KVM really boots, else "tcg".
func (m *Machine) chooseAccel(ctx context.Context) (string, error) {
	o := m.record.Options
	switch {
	case o.ICount != "" && o.Accel == "kvm":
		return "", errors.New("instructions can only be counted under emulation, not with kvm")
	case o.ICount != "", o.Accel == "tcg", o.Accel == "" && o.Arch != runtime.GOARCH:
		return "tcg", nil
	case o.Accel == "kvm":
		if o.Arch != runtime.GOARCH {
			return "", fmt.Errorf("kvm runs machines of this computer's architecture %s only, not %s", runtime.GOARCH, o.Arch)
		}
		return "kvm", nil
	}
	if m.kvmBoots(ctx) {
		return "kvm", nil
	}
	return "tcg", nil
}

// kvmBoots boots the image's kernel under KVM for a moment. /dev/kvm may be
// there and not run a stock kernel, so nothing less tells. The answer is kept
// until the host's next boot.
func (m *Machine) kvmBoots(ctx context.Context) bool {
	device, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	if device.Close() != nil {
		return false
	}
	kept := ""
	if cache, err := debian.CacheDir(); err == nil && bootID() != "" {
		kept = filepath.Join(cache, "kvm-"+bootID())
		if raw, err := os.ReadFile(kept); err == nil {
			return strings.TrimSpace(string(raw)) == "boots"
		}
	}
	uki, err := readKernelImage(m.record.Options.Image)
	if err != nil {
		return false
	}
	boots, err := m.probeKVM(ctx, uki.Kernel)
	if err != nil {
		return false
	}
	if kept != "" {
		// Not kept is only slower.
		_ = os.WriteFile(kept, []byte(map[bool]string{true: "boots\n", false: "does not boot\n"}[boots]), 0o644)
	}
	return boots
}

func (m *Machine) probeKVM(ctx context.Context, kernel []byte) (bool, error) {
	dir, err := os.MkdirTemp("", "oscine-kvm-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "kernel")
	if err := os.WriteFile(file, kernel, 0o600); err != nil {
		return false, err
	}
	name, platform, console := "qemu-system-x86_64", "q35", "ttyS0"
	if runtime.GOARCH == "arm64" {
		name, platform, console = "qemu-system-aarch64", "virt,gic-version=host", "ttyAMA0"
	}
	tool, err := debian.FindTool(ctx, name)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := tool.Command(ctx, "-M", platform, "-accel", "kvm", "-cpu", "host", "-m", "512M", "-nodefaults", "-no-user-config",
		"-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", file, "-append", "panic=-1 console="+console)
	runtime.LockOSThread() // see start
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return false, err
	}
	boots := readsEnd(out)
	cancel()
	_ = cmd.Wait() // killed in either case
	return boots, nil
}

// readsEnd reads a probe's output up to its verdict; cut off by the time limit,
// the kernel has not booted.
func readsEnd(out io.Reader) bool {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		switch {
		case bytes.Contains(lines.Bytes(), []byte(kernelStarted)):
			return true
		case bytes.Contains(lines.Bytes(), []byte("KVM internal error")):
			return false
		}
	}
	return false
}
