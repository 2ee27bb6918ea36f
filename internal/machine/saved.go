package machine

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/durable"
)

// Files of a saved machine and of those resumed from it.
const (
	stateFile = "state"      // memory and devices; a link to it in a resumed machine
	baseFile  = "base.qcow2" // in a resumed machine, a link to the saved disk
)

// migrationTimeout is for QEMU to write or read the state of a machine.
const migrationTimeout = 2 * time.Minute

// Save pauses the machine, writes its memory and the state of its devices, ends
// its QEMU and moves its folder to dir, which must not exist and lies on the
// same file system. What is there is never written again: Resume makes any
// number of machines from it, and its owner removes it with os.RemoveAll. After
// an error the machine may be paused or off; delete it.
//
// ErrNotRunning is returned for a machine that is off.
func (m *Machine) Save(ctx context.Context, dir string) error {
	if !m.Running() {
		return fmt.Errorf("machine %s: %w", m.Name(), ErrNotRunning)
	}
	if m.record.Options.TPM {
		return fmt.Errorf("machine %s has a TPM, whose state is not saved: start one without", m.Name())
	}
	if err := m.execute(ctx, "stop", nil, nil); err != nil {
		return err
	}
	if err := m.migrate(ctx, "migrate"); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	if err := m.execute(ctx, "quit", nil, nil); err != nil {
		return err
	}
	ending, cancel := context.WithTimeout(ctx, qmpTimeout)
	defer cancel()
	if err := m.Wait(ending); err != nil {
		return err
	}
	return durable.ReplaceTree(m.dir, dir)
}

// Resume makes a machine from what Save left in dir, and lets it go on from the
// moment when it was saved. Of o, StateDir, Name, Ports and Tied count; all else
// is as it was. The saved machine must stay while the resumed one is there.
//
// The guest takes notice of two things only: its network card announces itself,
// and the identifier of its generation changes, whereupon its kernel seeds its
// random numbers again (amd64; QEMU has no such device for arm64). Its clock
// lags by the time between. Errors are those of Start.
func Resume(ctx context.Context, dir string, o Options) (*Machine, error) {
	saved, err := readRecord(dir)
	if err != nil {
		return nil, fmt.Errorf("resume a saved machine: %w", err)
	}
	saved.Options.StateDir, saved.Options.Name, saved.Options.Ports, saved.Options.Tied = o.StateDir, o.Name, o.Ports, o.Tied
	if err := saved.Options.fill(); err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	m := &Machine{dir: filepath.Join(saved.Options.StateDir, o.Name), record: saved, resumes: true}
	if err := m.claim(); err != nil {
		return nil, err
	}
	err = m.prepareResumed(ctx, dir)
	if err == nil {
		err = m.launch(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("resume machine %s: %w", o.Name, err), m.Kill(), os.RemoveAll(m.dir))
	}
	m.resumes = false
	return m, nil
}

// prepareResumed fills the folder of a machine that is resumed from dir.
func (m *Machine) prepareResumed(ctx context.Context, dir string) error {
	for name, target := range map[string]string{stateFile: stateFile, baseFile: diskFile} {
		if err := os.Symlink(filepath.Join(dir, target), filepath.Join(m.dir, name)); err != nil {
			return err
		}
	}
	for _, name := range []string{varsFile, kernelFile, initramfsFile, commandLineFile, configFile, consoleLogFile} {
		if err := copyFile(filepath.Join(m.dir, name), filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return m.makeOverlay(ctx, "qcow2", baseFile)
}

// load reads the state that a machine was started to resume from.
func (m *Machine) load(ctx context.Context) error {
	if err := m.migrate(ctx, "migrate-incoming"); err != nil {
		return fmt.Errorf("%w: %s", err, m.qemuLog())
	}
	return m.execute(ctx, "cont", nil, nil)
}

// migrate writes or reads the machine's state file by the QEMU command and
// waits for the end. Each page has its place in the file, and those that hold
// only zeros are left out.
//
// Source: QEMU, docs/devel/migration/mapped-ram.rst.
func (m *Machine) migrate(ctx context.Context, command string) error {
	ctx, cancel := context.WithTimeout(ctx, migrationTimeout)
	defer cancel()
	err := m.execute(ctx, "migrate-set-capabilities", map[string]any{
		"capabilities": []any{map[string]any{"capability": "mapped-ram", "state": true}},
	}, nil)
	if err == nil {
		err = m.execute(ctx, command, map[string]any{"uri": "file:" + stateFile}, nil)
	}
	for err == nil {
		var progress struct {
			Status string
			Reason string `json:"error-desc"`
		}
		if err = m.execute(ctx, "query-migrate", nil, &progress); err != nil {
			break
		}
		switch progress.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return fmt.Errorf("QEMU of machine %s: %s %s: %s", m.Name(), command, progress.Status, progress.Reason)
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return err
}

// Fingerprint names everything that decides what a machine of these options is
// once it was booted: the image file with the digest of its kernel and root,
// what the guest sees of the options, the accelerator, the processor under KVM,
// and QEMU's version. A saved machine may stand in for another of the same
// fingerprint. Config, which holds keys, is left out.
func Fingerprint(ctx context.Context, o Options) (string, error) {
	if err := o.fill(); err != nil {
		return "", err
	}
	info, err := checkImage(o.Image, o.Arch)
	if err != nil {
		return "", err
	}
	uki, err := readKernelImage(o.Image)
	if err != nil {
		return "", err
	}
	m := &Machine{record: record{Options: o}}
	if o.Accel, err = m.chooseAccel(ctx); err != nil {
		return "", err
	}
	tool, err := debian.FindTool(ctx, qemuName(o.Arch))
	if err != nil {
		return "", err
	}
	version, err := tool.Command(ctx, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask QEMU for its version: %w", err)
	}
	o.Name, o.Ports, o.Tied = "", nil, false
	h := sha256.New()
	fmt.Fprintln(h, info.Size(), info.ModTime().UnixNano())
	if err := json.NewEncoder(h).Encode(o); err != nil {
		return "", err
	}
	for _, part := range [][]byte{version, []byte(uki.Cmdline), uki.Kernel, uki.Initramfs, hostCPU(o.Accel)} {
		fmt.Fprintf(h, "%d\n", len(part))
		h.Write(part)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:12]), nil
}

// hostCPU tells processors apart that a guest under KVM would tell apart.
func hostCPU(accel string) []byte {
	if accel != "kvm" {
		return nil
	}
	raw, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil
	}
	var facts []string
	for line := range strings.Lines(string(raw)) {
		name, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(name) {
		case "model name", "flags", "microcode", "Features", "CPU part":
			facts = append(facts, strings.TrimSpace(value))
		case "":
			return []byte(runtime.GOARCH + strings.Join(facts, "\n")) // the first processor is enough
		}
	}
	return []byte(strings.Join(facts, "\n"))
}
