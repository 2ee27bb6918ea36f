package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"oscine.dev/oscine/internal/debian"
)

// Files of a machine's TPM.
const (
	tpmFolder  = "tpm" // its state, which survives that the machine is off
	tpmSocket  = "tpm.sock"
	tpmLogFile = "tpm.log"
)

// startTPM starts swtpm, which ends with QEMU's connection, and waits until it
// can be connected to. Call stop where QEMU does not start.
func (m *Machine) startTPM(ctx context.Context) (stop func(), err error) {
	tool, err := debian.FindTool(ctx, "swtpm")
	if err != nil {
		return nil, fmt.Errorf("no TPM for the machine: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(m.dir, tpmFolder), 0o700); err != nil {
		return nil, err
	}
	socket := filepath.Join(m.dir, tpmSocket)
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	cmd := tool.Command(context.WithoutCancel(ctx), "socket", "--tpm2", "--tpmstate", "dir="+tpmFolder,
		"--ctrl", "type=unixio,path="+tpmSocket, "--log", "file="+tpmLogFile, "--terminate")
	cmd.Dir = m.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if m.record.Options.Tied {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	exited, err := start(cmd)
	if err != nil {
		return nil, fmt.Errorf("start swtpm: %w", err)
	}
	stop = func() {
		_ = cmd.Process.Kill() // it may have ended
		<-exited
	}
	deadline := time.After(startTimeout)
	for {
		if _, err := os.Stat(socket); err == nil {
			return stop, nil
		}
		select {
		case <-exited:
			said, _ := os.ReadFile(filepath.Join(m.dir, tpmLogFile)) // it says why it ended, if anything does
			return nil, fmt.Errorf("swtpm, the machine's TPM, ended at once: %s", said)
		case <-ctx.Done():
			stop()
			return nil, ctx.Err()
		case <-deadline:
			stop()
			return nil, fmt.Errorf("swtpm, the machine's TPM, does not listen within %s", startTimeout)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
