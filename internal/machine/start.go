package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/printable"
)

// startTimeout is how long QEMU gets to open its control socket.
const startTimeout = 30 * time.Second

// portAttempts is how often Start chooses other free ports when someone else
// took them first.
const portAttempts = 5

// Start makes the machine, or takes the stopped one when o.Image is "", and
// starts it. ctx covers the start alone: the machine runs on. An error leaves
// no process, and no folder that was not there before.
//
// Errors that a caller can act on are ErrExists, ErrRunning and ErrNotFound;
// every other says what to do.
func Start(ctx context.Context, o Options) (*Machine, error) {
	again := o.Image == ""
	if err := o.fill(); err != nil {
		return nil, err
	}
	if again {
		return restart(ctx, o)
	}
	image, err := filepath.Abs(o.Image)
	if err != nil {
		return nil, err
	}
	o.Image = image
	info, err := checkImage(image, o.Arch)
	if err != nil {
		return nil, err
	}
	if o.DiskSize != 0 && o.DiskSize < info.Size() {
		return nil, fmt.Errorf("a disk of %s: the image alone has %s: ask for at least that", printable.Bytes(o.DiskSize), printable.Bytes(info.Size()))
	}
	m := &Machine{dir: filepath.Join(o.StateDir, o.Name)}
	m.record = record{Options: o, ImageSize: info.Size(), ImageTime: info.ModTime()}
	if err := m.claim(); err != nil {
		return nil, err
	}
	err = m.prepare(ctx)
	if err == nil {
		err = m.launch(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start machine %s: %w", o.Name, err), os.RemoveAll(m.dir))
	}
	return m, nil
}

// restart starts a stopped machine again; new ports and configuration replace
// the earlier ones.
func restart(ctx context.Context, o Options) (*Machine, error) {
	m, err := Open(o.StateDir, o.Name)
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("%w: name an image to make it, with --image FILE (see oscine image build)", err)
	}
	if err != nil {
		return nil, err
	}
	if m.Running() {
		return nil, fmt.Errorf("machine %s: %w already", o.Name, ErrRunning)
	}
	info, err := os.Stat(m.record.Options.Image)
	if err != nil {
		return nil, fmt.Errorf("machine %s: the image its disk is based on: %w", o.Name, err)
	}
	if info.Size() != m.record.ImageSize || !info.ModTime().Equal(m.record.ImageTime) {
		return nil, fmt.Errorf("machine %s: its image %s was changed since, so its disk no longer fits: oscine machine delete %s and start it again",
			o.Name, m.record.Options.Image, o.Name)
	}
	if len(o.Ports) > 0 {
		m.record.Options.Ports = o.Ports
	}
	if o.Config != nil {
		m.record.Options.Config = o.Config
		if err := os.WriteFile(filepath.Join(m.dir, configFile), o.Config, 0o600); err != nil {
			return nil, err
		}
	}
	if m.record.Accel, err = m.chooseAccel(ctx); err != nil {
		return nil, err
	}
	if err := m.launch(ctx); err != nil {
		return nil, fmt.Errorf("start machine %s: %w", o.Name, err)
	}
	return m, nil
}

// claim makes the machine's folder, the lock on its name.
func (m *Machine) claim() error {
	if err := os.MkdirAll(filepath.Dir(m.dir), 0o700); err != nil {
		return err
	}
	err := os.Mkdir(m.dir, 0o700)
	if !errors.Is(err, os.ErrExist) {
		return err
	}
	name := m.Name()
	if old, openErr := Open(filepath.Dir(m.dir), name); openErr == nil && old.Running() {
		return fmt.Errorf("machine %s: %w, and it is running: choose another name, or oscine machine delete --force %s", name, ErrExists, name)
	}
	return fmt.Errorf("machine %s: %w: start it without an image to go on with its disk, or oscine machine delete %s", name, ErrExists, name)
}

// prepare fills the folder of a new machine.
func (m *Machine) prepare(ctx context.Context) error {
	o := m.record.Options
	var err error
	if m.record.Accel, err = m.chooseAccel(ctx); err != nil {
		return err
	}
	if err := m.makeOverlay(ctx, "raw", o.Image); err != nil {
		return err
	}
	if o.Config != nil {
		if err := os.WriteFile(filepath.Join(m.dir, configFile), o.Config, 0o600); err != nil {
			return err
		}
	}
	if o.Direct {
		return m.extractKernel()
	}
	source, err := debian.Open(io.Discard)
	if err != nil {
		return err
	}
	firmware, err := source.Firmware(ctx, o.Arch, o.SecureBoot)
	if err != nil {
		return err
	}
	return copyFile(filepath.Join(m.dir, varsFile), firmware.Vars)
}

// makeOverlay makes the disk that takes the machine's writes, over a file of the
// given format; a relative name is one in the machine's folder.
func (m *Machine) makeOverlay(ctx context.Context, format, base string) error {
	tool, err := debian.FindTool(ctx, "qemu-img")
	if err != nil {
		return fmt.Errorf("no QEMU: %w", err)
	}
	size := max(m.record.Options.DiskSize, m.record.ImageSize)
	cmd := tool.Command(ctx, "create", "-q", "-f", "qcow2", "-F", format, "-b", base,
		filepath.Join(m.dir, diskFile), fmt.Sprint(size))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make its disk: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// launch chooses ports and starts QEMU.
func (m *Machine) launch(ctx context.Context) error {
	asked := m.record.Options.Ports
	for attempt := 1; ; attempt++ {
		ports, chosen, err := choosePorts(asked)
		if err != nil {
			return err
		}
		m.record.Options.Ports = ports
		err = m.run(ctx)
		if err == nil {
			return nil
		}
		if chosen == 0 || attempt == portAttempts || !strings.Contains(err.Error(), "host forwarding") {
			return err
		}
	}
}

// choosePorts replaces port 0 by free ones; a port asked for by number must be
// free.
func choosePorts(asked []Port) (ports []Port, chosen int, err error) {
	for _, p := range asked {
		if p.Chosen && !PortFree(p.Host) {
			p.Host = 0
		}
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", p.Host))
		if err != nil {
			return nil, 0, fmt.Errorf("port %d of this computer is taken: forward another one to the machine's %d, or leave the choice to oscine with --port %d",
				p.Host, p.Guest, p.Guest)
		}
		// All listeners stay open until every port is chosen.
		defer l.Close()
		if p.Host == 0 {
			p.Host, p.Chosen = l.Addr().(*net.TCPAddr).Port, true
		}
		if p.Chosen {
			chosen++
		}
		ports = append(ports, p)
	}
	return ports, chosen, nil
}

// run starts the QEMU process and waits until it can be controlled.
func (m *Machine) run(ctx context.Context) (failed error) {
	cmd, err := m.command(ctx)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(m.dir, qemuLogFile))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Dir, cmd.Stdout, cmd.Stderr = m.dir, log, log
	// Its own session: neither Ctrl-C nor the end of the terminal reaches it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	for _, name := range []string{qmpSocket, consoleSocket} {
		if err := os.Remove(filepath.Join(m.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if m.record.Options.Tied {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if m.record.Options.TPM {
		stop, err := m.startTPM(ctx)
		if err != nil {
			return err
		}
		defer func() {
			if failed != nil {
				stop()
			}
		}()
	}
	exited, err := start(cmd)
	if err != nil {
		return fmt.Errorf("start QEMU: %w", err)
	}
	m.exited = exited
	state, err := readProcess(cmd.Process.Pid)
	m.record.PID, m.record.PIDStarted, m.record.BootID, m.record.Started = cmd.Process.Pid, state.started, bootID(), time.Now()
	err = errors.Join(err, m.record.write(m.dir))
	if err == nil {
		err = m.waitControl(ctx)
	}
	if err == nil && m.resumes {
		err = m.load(ctx)
	}
	if err != nil {
		return errors.Join(err, m.Kill())
	}
	return nil
}

// start starts a process and returns a channel that is closed at its end. The
// kernel sends the parent's death signal when the thread that started the
// process ends (prctl(2), PR_SET_PDEATHSIG), so that one stays until then.
func start(cmd *exec.Cmd) (exited chan struct{}, err error) {
	exited = make(chan struct{})
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // only to collect it: how QEMU ended is in its log
			close(exited)
		}
	}()
	return exited, <-started
}

// waitControl waits until QEMU answers on its control socket.
func (m *Machine) waitControl(ctx context.Context) error {
	deadline := time.Now().Add(startTimeout)
	for {
		err := m.execute(ctx, "query-status", nil, nil)
		if err == nil {
			return nil
		}
		select {
		case <-m.exited:
			return fmt.Errorf("QEMU ended at once: %s", m.qemuLog())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("QEMU does not answer within %s: %w", startTimeout, err)
		}
	}
}

// qemuLog is the end of what QEMU itself said.
func (m *Machine) qemuLog() string {
	raw, err := os.ReadFile(filepath.Join(m.dir, qemuLogFile))
	if err != nil {
		return err.Error()
	}
	const end = 2000
	if text := strings.TrimSpace(string(raw[max(0, len(raw)-end):])); text != "" {
		return text
	}
	return "it said nothing"
}

// command is the complete QEMU command.
func (m *Machine) command(ctx context.Context) (*exec.Cmd, error) {
	tool, err := debian.FindTool(ctx, qemuName(m.record.Options.Arch))
	if err != nil {
		return nil, fmt.Errorf("no QEMU: %w", err)
	}
	args, err := m.arguments(ctx)
	if err != nil {
		return nil, err
	}
	// Not bound to ctx, which would kill the machine when the start is over.
	cmd := tool.Command(context.WithoutCancel(ctx), args...)
	return cmd, nil
}

func qemuName(arch string) string {
	if arch == "arm64" {
		return "qemu-system-aarch64"
	}
	return "qemu-system-x86_64"
}

func copyFile(to, from string) error {
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, raw, 0o600)
}

// PortFree reports whether a TCP port of 127.0.0.1 can be listened on now.
func PortFree(port int) bool {
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
