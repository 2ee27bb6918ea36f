package machine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/durable"
)

// Files of a machine's folder.
const (
	recordFile     = "machine.json"
	diskFile       = "disk.qcow2"
	varsFile       = "vars.fd"
	kernelFile     = "kernel"
	initramfsFile  = "initramfs"
	configFile     = "config.yaml"
	consoleLogFile = "console.log"
	consoleSocket  = "console.sock"
	qmpSocket      = "qmp.sock"
	qemuLogFile    = "qemu.log"
)

// record is what is kept of a machine between two programs.
type record struct {
	Options    Options   `json:"options"`
	Accel      string    `json:"accel"`
	PID        int       `json:"pid"`
	PIDStarted uint64    `json:"pidStarted"` // in clock ticks since the host's boot, proc(5) field 22
	BootID     string    `json:"bootId"`     // of the host, so that ticks are not compared across boots
	Started    time.Time `json:"started"`
	ImageSize  int64     `json:"imageSize"`
	ImageTime  time.Time `json:"imageTime"`
}

func readRecord(dir string) (record, error) {
	var r record
	raw, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, fmt.Errorf("%s: %w", filepath.Join(dir, recordFile), err)
	}
	r.Options.StateDir = filepath.Dir(dir)
	return r, nil
}

func (r record) write(dir string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, recordFile), append(raw, '\n'), 0o600)
}

// alive reports whether the recorded process, and not another that has been
// given its number, is running.
func (r record) alive() bool {
	if r.PID == 0 || r.BootID != bootID() {
		return false
	}
	p, err := readProcess(r.PID)
	return err == nil && p.started == r.PIDStarted && p.state != 'Z' && p.state != 'X'
}

// kill sends SIGKILL to the recorded process and to no other, even if its
// number is handed on meanwhile.
func (r record) kill() error {
	fd, err := unix.PidfdOpen(r.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", r.PID, err)
	}
	defer unix.Close(fd)
	if !r.alive() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", r.PID, err)
	}
	return nil
}

// bootID names this boot of the host; "" where it cannot be read.
func bootID() string {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// processState is what proc(5) tells in /proc/PID/stat.
type processState struct {
	state   byte
	started uint64        // clock ticks since boot
	cpu     time.Duration // user and system
}

const clockTick = time.Second / 100 // USER_HZ of every architecture Oscine runs on

func readProcess(pid int) (processState, error) {
	if pid <= 0 {
		return processState{}, os.ErrNotExist
	}
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return processState{}, err
	}
	return parseStat(raw)
}

func parseStat(raw []byte) (processState, error) {
	// The program's name, field 2, may hold blanks and parentheses.
	i := bytes.LastIndexByte(raw, ')')
	fields := bytes.Fields(raw[i+1:])
	if i < 0 || len(fields) < 20 || len(fields[0]) != 1 {
		return processState{}, fmt.Errorf("process state %q: not in the form of proc(5)", raw)
	}
	user, err1 := strconv.ParseUint(string(fields[11]), 10, 62)
	system, err2 := strconv.ParseUint(string(fields[12]), 10, 62)
	started, err3 := strconv.ParseUint(string(fields[19]), 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return processState{}, fmt.Errorf("process state: %w", err)
	}
	return processState{state: fields[0][0], started: started, cpu: time.Duration(user+system) * clockTick}, nil
}
