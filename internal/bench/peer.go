package bench

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/linux"
)

// Both systems get the same machine.
const (
	memory     = 2 << 30
	processors = "2"
)

//go:embed peer-debian.sh
var peerScript []byte

// peer is the folder of a minimal Debian: disk.img, kernel, initramfs.
type peer struct{ dir string }

// makePeer installs the Debian on first use; the next runs find it.
func (b Boot) makePeer(ctx context.Context) (peer, error) {
	p := peer{filepath.Join(b.Dir, "peer-debian")}
	if _, err := os.Stat(filepath.Join(p.dir, "disk.img")); err == nil {
		return p, nil
	}
	mirror, err := debian.Mirror(ctx)
	if err != nil {
		return p, err
	}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return p, err
	}
	script := filepath.Join(p.dir, "make")
	if err := os.WriteFile(script, peerScript, 0o755); err != nil {
		return p, err
	}
	command := exec.CommandContext(ctx, script, p.dir, mirror)
	command.Stdout, command.Stderr = b.Log, b.Log
	return p, command.Run()
}

// boot starts the Debian as package machine starts Oscine, waits for nginx and
// for the peer's own report, and ends it.
func (p peer) boot(ctx context.Context, accel string) (sample BootSample, err error) {
	port, err := freePort()
	if err != nil {
		return sample, err
	}
	emulator, platform, terminal := platformOf(runtime.GOARCH, accel)
	tool, err := debian.FindTool(ctx, emulator)
	if err != nil {
		return sample, err
	}
	command := tool.Command(ctx, append(platform,
		"-nodefaults", "-no-user-config", "-display", "none", "-m", fmt.Sprintf("%dM", memory>>20), "-smp", processors,
		"-serial", "stdio", "-device", "virtio-rng-pci", "-no-reboot",
		"-drive", "if=none,id=disk0,format=raw,snapshot=on,cache=unsafe,file="+filepath.Join(p.dir, "disk.img"), "-device", "virtio-blk-pci,drive=disk0",
		"-netdev", fmt.Sprintf("user,id=user0,hostfwd=tcp:127.0.0.1:%d-:80", port), "-device", "virtio-net-pci,romfile=,netdev=user0",
		"-kernel", filepath.Join(p.dir, "kernel"), "-initrd", filepath.Join(p.dir, "initramfs"),
		"-append", "root=/dev/vda rw quiet net.ifnames=0 console="+terminal,
	)...)
	var failure bytes.Buffer
	command.Stderr = &failure
	console, err := command.StdoutPipe()
	if err != nil {
		return sample, err
	}
	if err := command.Start(); err != nil {
		return sample, err
	}
	reports := make(chan int64, 1)
	read := make(chan struct{})
	go func() { defer close(read); readReports(console, reports) }()
	defer func() {
		killErr := command.Process.Kill()
		<-read
		_ = command.Wait() // it was killed, and says so
		if errors.Is(killErr, os.ErrProcessDone) {
			err = errors.Join(err, fmt.Errorf("QEMU ended by itself: %s", strings.TrimSpace(failure.String())))
		}
	}()
	cpuTime := func() (time.Duration, error) { return processTime(command.Process.Pid) }
	sample.CPU, err = untilReady(ctx, cpuTime, answersHTTP(fmt.Sprintf("http://127.0.0.1:%d/", port)))
	if err != nil {
		return sample, err
	}
	if err := pause(ctx, settle); err != nil {
		return sample, err
	}
	if sample.QEMU, err = linux.ResidentBytes(command.Process.Pid); err != nil {
		return sample, err
	}
	select {
	case sample.Processes = <-reports:
		return sample, nil
	case <-ctx.Done():
		return sample, ctx.Err()
	case <-time.After(5 * time.Minute):
		return sample, errors.New("it did not report its memory")
	}
}

// platformOf chooses what package machine does for the same architecture.
func platformOf(arch, accel string) (emulator string, args []string, terminal string) {
	emulator, args, terminal = "qemu-system-x86_64", []string{"-M", "q35"}, "ttyS0"
	cpu := "max"
	if arch == "arm64" {
		emulator, args, terminal = "qemu-system-aarch64", []string{"-M", "virt,gic-version=3"}, "ttyAMA0"
		cpu = "max,pauth-impdef=on"
	}
	if accel == "kvm" {
		return emulator, append(args, "-cpu", "host", "-accel", "kvm"), terminal
	}
	return emulator, append(args, "-cpu", cpu, "-accel", "tcg,thread=multi"), terminal
}

var reportRE = regexp.MustCompile(`peer-memory pss_kib=([0-9]+)`)

// readReports finds the peer's report of its memory among console lines.
func readReports(console io.Reader, reports chan<- int64) {
	for lines := bufio.NewScanner(console); lines.Scan(); {
		if m := reportRE.FindSubmatch(lines.Bytes()); m != nil {
			if kib, err := strconv.ParseInt(string(m[1]), 10, 64); err == nil {
				reports <- kib << 10
				break
			}
		}
	}
	// A pipe that nobody reads would stop the guest.
	_, _ = io.Copy(io.Discard, console)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// processTime is the user and system time of a process; see proc_pid_stat(5).
func processTime(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, found := bytes.Cut(raw, []byte(") "))
	fields := strings.Fields(string(rest))
	if !found || len(fields) < 13 || fields[0] == "Z" {
		return 0, fmt.Errorf("process %d has ended", pid)
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on amd64 and arm64
	var sum time.Duration
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the time of process %d: %w", pid, err)
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}
