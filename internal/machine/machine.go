package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/printable"
)

// Errors a caller can act on.
var (
	// ErrNotFound is returned for a name that no machine has.
	ErrNotFound = errdefs.ErrNotFound.WithMessage("there is no such machine")
	// ErrExists is returned by Start with an image for a name that is taken.
	ErrExists = errdefs.ErrAlreadyExists.WithMessage("a machine of that name exists")
	// ErrRunning is returned where a machine would have to be off.
	ErrRunning = errdefs.ErrFailedPrecondition.WithMessage("the machine is running")
	// ErrNotRunning is returned where a machine would have to be on.
	ErrNotRunning = errdefs.ErrFailedPrecondition.WithMessage("the machine is not running")
)

// Options describe a machine. The zero value of every field but Name and Image
// is a sensible choice.
type Options struct {
	// StateDir holds the machines; "" is DefaultStateDir.
	StateDir string `json:"-"`
	// Name is a lower-case DNS label, unique in StateDir.
	Name string `json:"name"`
	// Image is a raw disk image; it is only ever read. "" starts the machine
	// of that name again as it was.
	Image string `json:"image"`
	// Arch is amd64 or arm64; "" is this machine's.
	Arch string `json:"arch"`
	// Direct hands kernel and initramfs of the image's newest unified kernel
	// image to QEMU instead of starting UEFI firmware and boot loader. Faster,
	// but nothing counts boots or changes slots.
	Direct bool `json:"direct,omitempty"`
	// KernelArgs go behind the image's own kernel command line; Direct only.
	KernelArgs string `json:"kernelArgs,omitempty"`
	// ExtraInitramfs are cpio archives unpacked over the image's; Direct only.
	ExtraInitramfs []string `json:"extraInitramfs,omitempty"`
	// Memory is the RAM in bytes; 0 is 2 GiB.
	Memory int64 `json:"memory"`
	// CPUs is QEMU's -smp argument, a number or topology such as
	// "4,sockets=2,cores=2"; "" is "2".
	CPUs string `json:"cpus"`
	// DiskSize is the size of the machine's disk in bytes; 0 is the
	// image's.
	DiskSize int64 `json:"diskSize,omitempty"`
	// Ports are guest TCP ports reachable on 127.0.0.1.
	Ports []Port `json:"ports,omitempty"`
	// Config is a Machine manifest handed over by fw_cfg; nil for none.
	Config []byte `json:"-"`
	// SecureBoot takes firmware that checks signatures. It begins in setup mode:
	// it trusts everything until keys are enrolled. Not with Direct.
	SecureBoot bool `json:"secureBoot,omitempty"`
	// TPM gives the machine an emulated TPM 2.0, by swtpm.
	TPM bool `json:"tpm,omitempty"`
	// Accel is "kvm", "tcg" (emulation), or "" for KVM if it really boots.
	Accel string `json:"accel,omitempty"`
	// ICount counts instructions instead of time: -icount shift=N, single
	// threaded. Its value is N as text; "" is off.
	ICount string `json:"icount,omitempty"`
	// NoReboot ends QEMU where the guest restarts.
	NoReboot bool `json:"noReboot,omitempty"`
	// Volatile lets the host lose the disk's last writes when the host itself
	// crashes; tests need no more.
	Volatile bool `json:"volatile,omitempty"`
	// Tied ends the machine with the process that started it, however that ends;
	// without it the machine outlives it.
	Tied bool `json:"tied,omitempty"`
	// ExtraArgs go to QEMU as they are.
	ExtraArgs []string `json:"extraArgs,omitempty"`
}

// Port is one forwarded TCP port.
type Port struct {
	Host  int `json:"host"`  // on 127.0.0.1; 0 lets Start choose a free one
	Guest int `json:"guest"` // on the machine
	// Chosen tells that Start chose Host; another start may choose again.
	Chosen bool `json:"chosen,omitempty"`
}

// Machine is one machine's folder. It stays valid while the folder is there,
// whether the machine runs or not.
type Machine struct {
	dir     string
	record  record
	resumes bool          // its next start goes on from a saved state
	exited  chan struct{} // closed when the QEMU this process started has ended; nil otherwise
}

// DefaultStateDir is $XDG_STATE_HOME/oscine/machines, or ~/.local/state/….
func DefaultStateDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "oscine", "machines"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the folder of the machines: %w", err)
	}
	return filepath.Join(home, ".local", "state", "oscine", "machines"), nil
}

var nameRule = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

const defaultMemory = 2 << 30

// fill sets defaults and refuses what cannot work.
func (o *Options) fill() (err error) {
	if o.StateDir == "" {
		if o.StateDir, err = DefaultStateDir(); err != nil {
			return err
		}
	}
	if !nameRule.MatchString(o.Name) {
		return fmt.Errorf("machine name %q: use lower-case letters, digits and hyphens, at most 63", o.Name)
	}
	if o.Arch == "" {
		o.Arch = runtime.GOARCH
	}
	if o.Arch != "amd64" && o.Arch != "arm64" {
		return fmt.Errorf("architecture %q: use amd64 or arm64", o.Arch)
	}
	if o.Memory == 0 {
		o.Memory = defaultMemory
	}
	if o.Memory < 128<<20 {
		return fmt.Errorf("memory of %s: Oscine needs at least 128 MiB", printable.Bytes(o.Memory))
	}
	if o.CPUs == "" {
		o.CPUs = "2"
	}
	if !o.Direct && (o.KernelArgs != "" || len(o.ExtraInitramfs) > 0) {
		return errors.New("kernel arguments can only be added with --direct: with UEFI the image's signed command line counts")
	}
	if o.Direct && o.SecureBoot {
		return errors.New("--secureboot needs firmware, and --direct starts none: use one of them")
	}
	if o.Direct && o.TPM {
		return errors.New("--tpm needs firmware, which measures the boot and tells the kernel of the TPM, and --direct starts none: use one of them")
	}
	if o.Accel != "" && o.Accel != "kvm" && o.Accel != "tcg" {
		return fmt.Errorf("accelerator %q: use kvm or tcg", o.Accel)
	}
	seen := map[int]bool{}
	for _, p := range o.Ports {
		if p.Guest < 1 || p.Guest > 65535 || p.Host < 0 || p.Host > 65535 {
			return fmt.Errorf("port %d:%d: ports lie between 1 and 65535", p.Host, p.Guest)
		}
		if p.Host != 0 && seen[p.Host] {
			return fmt.Errorf("port %d of this computer is asked for twice", p.Host)
		}
		seen[p.Host] = true
	}
	return nil
}

// Open returns the machine of that name. stateDir "" is DefaultStateDir.
func Open(stateDir, name string) (*Machine, error) {
	o := Options{StateDir: stateDir, Name: name}
	if err := o.fill(); err != nil {
		return nil, err
	}
	m := &Machine{dir: filepath.Join(o.StateDir, name)}
	r, err := readRecord(m.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("machine %s: %w (see oscine machine list)", name, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", name, err)
	}
	m.record = r
	return m, nil
}

// List returns the machines in stateDir ("" is DefaultStateDir) by name; ones
// whose record cannot be read are left out.
func List(stateDir string) ([]*Machine, error) {
	if stateDir == "" {
		var err error
		if stateDir, err = DefaultStateDir(); err != nil {
			return nil, err
		}
	}
	entries, err := os.ReadDir(stateDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var machines []*Machine
	for _, e := range entries {
		dir := filepath.Join(stateDir, e.Name())
		if r, err := readRecord(dir); err == nil {
			machines = append(machines, &Machine{dir: dir, record: r})
		}
	}
	return machines, nil
}

// Name is the machine's name.
func (m *Machine) Name() string { return m.record.Options.Name }

// Options are what the machine was started with, defaults filled in.
func (m *Machine) Options() Options { return m.record.Options }

// Config is the Machine manifest that the machine was given at its start by
// fw_cfg; nil where it was given none.
func (m *Machine) Config() ([]byte, error) {
	raw, err := os.ReadFile(filepath.Join(m.dir, configFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return raw, err
}

// Started is when the machine was last started.
func (m *Machine) Started() time.Time { return m.record.Started }

// Accel is "kvm" or "tcg".
func (m *Machine) Accel() string { return m.record.Accel }

// PID is the process of the running QEMU, 0 while it is off.
func (m *Machine) PID() int {
	if !m.Running() {
		return 0
	}
	return m.record.PID
}

// Addr is where the guest's TCP port is reachable, host:port; "" when it is
// not forwarded.
func (m *Machine) Addr(guest int) string {
	for _, p := range m.record.Options.Ports {
		if p.Guest == guest {
			return fmt.Sprintf("127.0.0.1:%d", p.Host)
		}
	}
	return ""
}

// ConsoleLog is the file with everything the serial console has printed.
func (m *Machine) ConsoleLog() string { return filepath.Join(m.dir, consoleLogFile) }

// Running reports whether the machine's QEMU process is alive.
func (m *Machine) Running() bool { return m.record.alive() }

// CPUTime is the processor time, user and system, that the machine's QEMU has
// used since its start: a measure of a boot that a busy host does not spoil.
func (m *Machine) CPUTime() (time.Duration, error) {
	s, err := readProcess(m.record.PID)
	if err != nil || !m.Running() {
		return 0, fmt.Errorf("machine %s: %w", m.Name(), ErrNotRunning)
	}
	return s.cpu, nil
}

// Instructions is how many instructions a machine with ICount has executed
// since power-on. Time in which it idles has none.
func (m *Machine) Instructions(ctx context.Context) (int64, error) {
	var replay struct{ ICount int64 }
	err := m.execute(ctx, "query-replay", nil, &replay)
	return replay.ICount, err
}

var programCounter = regexp.MustCompile(`(?m)\b(?:RIP|PC)=([0-9a-f]{16})`)

// InKernel reports whether the machine's first processor runs in the upper half
// of the address space, as Linux does from its start and no firmware does.
func (m *Machine) InKernel(ctx context.Context) (bool, error) {
	registers, err := m.Monitor(ctx, "info registers")
	if err != nil {
		return false, err
	}
	at := programCounter.FindStringSubmatch(registers)
	return at != nil && strings.HasPrefix(at[1], "ffff"), nil
}

// Wait waits until QEMU has ended.
func (m *Machine) Wait(ctx context.Context) error {
	for m.Running() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("machine %s still runs: %w", m.Name(), ctx.Err())
		case <-m.exited: // a nil channel never is ready
			return nil
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}
