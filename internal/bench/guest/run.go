package guest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"oscine.dev/oscine/internal/debian"
)

// Options describe a guest. Init is required.
type Options struct {
	Init   string            // static program of the guest's architecture, its first and only process
	Args   []string          // of Init; without spaces and quotes
	Env    map[string]string // of Init; names are not the kernel's own parameters
	Files  map[string]string // more files: name in the guest without a leading slash → file here
	Kernel string            // flavour: cloud (default), metal or rt
	Arch   string            // amd64 or arm64; "" is this computer's
	CPUs   string            // QEMU's -smp; "" is 1
	Memory int               // MiB; 0 is 512
	Append string            // more kernel parameters

	// ICount makes the clock count instructions, each of 1<<Shift nanoseconds.
	// With several CPUs the emulator runs them in turns of half Turn each.
	ICount bool
	Shift  int // 0 to 10
	Turn   int // virtual microseconds; 0 is 20

	ExtraArgs []string // for QEMU
}

// ErrUnfinished is returned for a guest that ended without the line that
// [Main] prints last: its kernel crashed, or its init was killed.
var ErrUnfinished = errors.New("the guest ended before its program did")

// exitLine is followed by the program's exit status.
const exitLine = "guest-exit-status:"

// Run boots a guest and copies its console to out until it is off. The
// program's own failure is an *ExitError; see also ErrUnfinished.
func Run(ctx context.Context, o Options, out io.Writer) error {
	source, err := debian.Open(os.Stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "oscine-guest-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	args, err := o.arguments(ctx, source, dir)
	if err != nil {
		return err
	}
	name := "qemu-system-x86_64"
	if o.arch() == "arm64" {
		name = "qemu-system-aarch64"
	}
	tool, err := source.Tool(ctx, name)
	if err != nil {
		return err
	}
	cmd := tool.Command(ctx, args...)
	// The guest ends with this process, however that ends. The signal comes when
	// the thread that started the guest ends, so this one waits for it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	console, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var problems strings.Builder
	cmd.Stderr = &problems
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the guest: %w", err)
	}
	status := copyConsole(out, console)
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("guest: %w", ctx.Err())
	case err != nil:
		return fmt.Errorf("guest: %w: %s", err, strings.TrimSpace(problems.String()))
	case status < 0:
		return ErrUnfinished
	case status > 0:
		return &ExitError{Status: status}
	}
	return nil
}

// ExitError reports a guest's program that failed.
type ExitError struct{ Status int }

func (e *ExitError) Error() string {
	return fmt.Sprintf("the guest's program ended with exit status %d", e.Status)
}

// copyConsole returns the program's exit status, -1 where it did not end.
func copyConsole(out io.Writer, console io.Reader) int {
	status := -1
	lines := bufio.NewReaderSize(console, 64<<10)
	for {
		line, err := lines.ReadString('\n')
		if _, rest, ok := strings.Cut(line, exitLine); ok {
			if n, err := strconv.Atoi(strings.TrimSpace(rest)); err == nil {
				status = n
			}
		} else if line != "" {
			_, _ = io.WriteString(out, strings.ReplaceAll(line, "\r", "")) // the guest goes on without a reader
		}
		if err != nil {
			return status
		}
	}
}

func (o *Options) arch() string {
	if o.Arch == "" {
		return runtime.GOARCH
	}
	return o.Arch
}

// arguments writes the initramfs and returns QEMU's arguments.
func (o *Options) arguments(ctx context.Context, source *debian.Source, dir string) ([]string, error) {
	kernel, err := findKernel(ctx, source, o.Kernel, o.arch())
	if err != nil {
		return nil, err
	}
	files := map[string]string{"init": o.Init}
	for name, file := range o.Files {
		files[name] = file
	}
	initramfs, err := archive(files)
	if err != nil {
		return nil, fmt.Errorf("make the guest's initramfs: %w", err)
	}
	initrd := filepath.Join(dir, "initramfs")
	if err := os.WriteFile(initrd, initramfs, 0o600); err != nil {
		return nil, err
	}
	cpus, memory := o.CPUs, o.Memory
	if cpus == "" {
		cpus = "1"
	}
	if memory == 0 {
		memory = 512
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-m", fmt.Sprintf("%dM", memory), "-smp", cpus, "-kernel", kernel, "-initrd", initrd,
		"-append", o.commandLine(),
	}
	cpu := "max"
	if o.arch() == "arm64" {
		cpu = "max,pauth-impdef=on"
		args = append(args, "-M", "virt,gic-version=3")
	} else {
		args = append(args, "-M", "q35")
	}
	// One thread for all CPUs: QEMU's threads race where a kernel replaces code,
	// see RATIONALE.md.
	args = append(args, "-cpu", cpu, "-accel", "tcg,thread=single")
	if !o.ICount {
		return append(args, o.ExtraArgs...), nil
	}
	turn := o.Turn
	if turn == 0 {
		turn = 20
	}
	args = append(args, "-icount", fmt.Sprintf("shift=%d,sleep=off", o.Shift))
	if cpus != "1" {
		// The filter's timer bounds how long one virtual CPU runs before the
		// next has its turn.
		args = append(args, "-netdev", "hubport,id=n0,hubid=0", "-object", fmt.Sprintf("filter-buffer,id=f0,netdev=n0,interval=%d", turn))
	}
	return append(args, o.ExtraArgs...), nil
}

func (o *Options) commandLine() string {
	console := "ttyS0"
	if o.arch() == "arm64" {
		console = "ttyAMA0"
	}
	line := []string{"console=" + console, "quiet", "panic=-1", "rdinit=/init", "random.trust_cpu=on", guestMark + "=1",
		"cryptomgr.notests=1", // as in our images; they would hold a CPU for up to a second while the tests run
	}
	if o.arch() == "amd64" { // what fails or hangs where the host is busy, see internal/image
		line = append(line, "tsc=reliable", "no_timer_check")
	}
	if o.Append != "" {
		line = append(line, o.Append)
	}
	for name, value := range o.Env {
		line = append(line, name+"="+value)
	}
	if len(o.Args) > 0 {
		line = append(append(line, "--"), o.Args...)
	}
	return strings.Join(line, " ")
}

func findKernel(ctx context.Context, source *debian.Source, flavour, arch string) (string, error) {
	if flavour == "" {
		flavour = "cloud"
	}
	tree, err := source.Tree(ctx, "kernel-"+flavour, arch)
	if err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(tree.Dir, "usr/lib/modules/*/vmlinuz"))
	if err != nil || len(found) != 1 {
		return "", errors.Join(fmt.Errorf("the kernel package in %s does not hold one kernel", tree.Dir), err)
	}
	return found[0], nil
}
