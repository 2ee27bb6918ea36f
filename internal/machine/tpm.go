package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"oscine.dev/oscine/internal/debian"
)

// Files of a machine's TPM.
const (
	tpmFolder  = "tpm" // its state, which survives that the machine is off
	tpmSocket  = "tpm.sock"
	tpmLogFile = "tpm.log"
)

// startTPM starts swtpm, which ends with QEMU's connection. Call stop where QEMU
// does not start.
func (m *Machine) startTPM(ctx context.Context) (stop func(), err error) {
	tool, err := debian.FindTool(ctx, "swtpm")
	if err != nil {
		return nil, fmt.Errorf("no TPM for the machine: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(m.dir, tpmFolder), 0o700); err != nil {
		return nil, err
	}
	socket, err := m.listenTPM()
	if err != nil {
		return nil, fmt.Errorf("make the socket of the machine's TPM: %w", err)
	}
	defer socket.Close()
	cmd := tool.Command(context.WithoutCancel(ctx), "socket", "--tpm2", "--tpmstate", "dir="+tpmFolder,
		"--ctrl", "type=unixio,fd=3", "--log", "file="+tpmLogFile, "--terminate")
	cmd.Dir = m.dir
	cmd.ExtraFiles = []*os.File{socket} // the first of them is descriptor 3
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if m.record.Options.Tied {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	exited, err := start(cmd)
	if err != nil {
		return nil, fmt.Errorf("start swtpm: %w", err)
	}
	return func() {
		_ = cmd.Process.Kill() // it may have ended
		<-exited
	}, nil
}

// listenTPM makes the socket that QEMU connects to: it listens before either
// program starts. The machine's folder may have a name too long for a socket.
func (m *Machine) listenTPM() (*os.File, error) {
	if err := os.Remove(filepath.Join(m.dir, tpmSocket)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	dir, err := os.Open(m.dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	l, err := net.Listen("unix", "/proc/self/fd/"+strconv.Itoa(int(dir.Fd()))+"/"+tpmSocket)
	if err != nil {
		return nil, err
	}
	unix := l.(*net.UnixListener)
	unix.SetUnlinkOnClose(false)
	defer unix.Close()
	return unix.File()
}
