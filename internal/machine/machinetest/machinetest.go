package machinetest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/machine"
)

// APIPort is the guest port of oscined's API.
const APIPort = 7443

// Defaults of Start, chosen so that two machines fit beside a compiler.
const (
	defaultMemory = 1 << 30
	memoryBudget  = 3 * defaultMemory / 2 // what one machine costs the host at most
	consoleTail   = 6 << 10               // bytes shown of a failed test's console
)

// Machine is a running machine that belongs to one test.
type Machine struct {
	*machine.Machine
	t testing.TB
}

// Start starts a machine and ends it with the test. Empty fields of o are
// filled: Image with that of the tree under test, Name, StateDir, memory, and
// the API's port. A failed test shows the end of the console. It waits while
// as many machines run as the computer has processors and memory for.
func Start(t testing.TB, o machine.Options) *Machine {
	t.Helper()
	Need(t)
	o = filled(t, o)
	t.Cleanup(takePlace(t))
	if o.StateDir == "" {
		o.StateDir = t.TempDir()
	}
	m, err := machine.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return own(t, m)
}

// filled fills the empty fields of o for a machine of a test.
func filled(t testing.TB, o machine.Options) machine.Options {
	t.Helper()
	if o.Image == "" {
		o.Image = Image(t, o.Arch)
	}
	if o.Name == "" {
		o.Name = "test"
	}
	if o.Memory == 0 {
		o.Memory = defaultMemory
	}
	if o.Ports == nil {
		o.Ports = []machine.Port{{Guest: APIPort}}
	}
	o.Volatile, o.Tied = true, true
	return o
}

// own ends the machine with the test.
func own(t testing.TB, m *machine.Machine) *Machine {
	tm := &Machine{m, t}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the console of machine %s ends with:\n%s", m.Name(), tm.tail())
		}
		if err := m.Delete(true); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return tm
}

// Restart starts the machine again after it went off, with its disk.
func (m *Machine) Restart() {
	m.t.Helper()
	o := m.Options()
	again, err := machine.Start(m.t.Context(), machine.Options{StateDir: o.StateDir, Name: o.Name, Arch: o.Arch})
	if err != nil {
		m.t.Fatal(err)
	}
	m.Machine = again
}

// Console is everything the machine has printed so far, over all its starts.
func (m *Machine) Console() string {
	raw, err := os.ReadFile(m.ConsoleLog())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		m.t.Fatal(err)
	}
	return string(raw)
}

func (m *Machine) tail() string {
	text := m.Console()
	return text[max(0, len(text)-consoleTail):]
}

// WaitConsole waits until the machine has printed something that matches the
// regular expression, counted from the start of its console, and returns the
// match and its groups. The test fails when the machine goes off first or
// timeout passes.
func (m *Machine) WaitConsole(pattern string, timeout time.Duration) []string {
	m.t.Helper()
	return m.WaitConsoleAfter(0, pattern, timeout)
}

// WaitConsoleAfter is WaitConsole for what stands behind offset, in bytes, such
// as len(m.Console()) before something was done to the machine.
func (m *Machine) WaitConsoleAfter(offset int, pattern string, timeout time.Duration) []string {
	m.t.Helper()
	re := regexp.MustCompile("(?m)" + pattern)
	var match []string
	m.Await(fmt.Sprintf("the console to show %q", pattern), timeout, func() bool {
		text := m.Console()
		match = re.FindStringSubmatch(text[min(offset, len(text)):])
		return match != nil
	})
	return match
}

// WaitTLS waits until a TLS server answers on the guest's port, be it with a
// refusal. A mere connection would prove nothing: QEMU's forwarder accepts it
// before the guest has an address.
func (m *Machine) WaitTLS(guest int, timeout time.Duration) {
	m.t.Helper()
	addr := m.Addr(guest)
	if addr == "" {
		m.t.Fatalf("port %d of the machine is not forwarded", guest)
	}
	m.Await(fmt.Sprintf("TLS on port %d", guest), timeout, func() bool { return answersTLS(addr) })
}

func answersTLS(addr string) bool {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	conn, err := tls.DialWithDialer(&dialer, "tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err == nil {
		return conn.Close() == nil
	}
	var alert tls.AlertError
	return errors.As(err, &alert)
}

// WaitOff waits until the machine's QEMU has ended.
func (m *Machine) WaitOff(timeout time.Duration) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := m.Wait(ctx); err != nil {
		m.t.Fatal(err)
	}
}

// Await polls done until it is true. The test fails, naming what it waited for,
// when the machine goes off first or timeout passes.
func (m *Machine) Await(what string, timeout time.Duration, done func() bool) {
	m.t.Helper()
	deadline := time.Now().Add(timeout)
	for {
		running := m.Running() // before done, so that last words count
		if done() {
			return
		}
		switch {
		case !running:
			m.t.Fatalf("waiting for %s: the machine went off", what)
		case time.Now().After(deadline):
			m.t.Fatalf("waiting for %s: nothing within %s", what, timeout)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// takePlace waits for one of a number of places that all test programs on this
// computer share.
func takePlace(t testing.TB) (release func()) {
	t.Helper()
	dir, err := cacheDir()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; time.Sleep(200 * time.Millisecond) {
		for i := range places() {
			unlock, err := lock(filepath.Join(dir, fmt.Sprintf("place-%d.lock", i)), unix.LOCK_EX|unix.LOCK_NB)
			if err == nil {
				return unlock
			}
			if !errors.Is(err, unix.EWOULDBLOCK) {
				t.Fatal(err)
			}
		}
	}
}

// places is how many machines may run at once.
func places() int {
	return max(1, min(runtime.NumCPU(), int(availableMemory()/memoryBudget)))
}

// availableMemory is the host's MemAvailable in bytes; 0 if unknown.
func availableMemory() int64 {
	raw, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line)
		if len(fields) > 1 && fields[0] == "MemAvailable:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}

// SysRq presses a magic SysRq key over the serial line, such as 'i', which
// kills every process but PID 1. The kernel needs sysrq_always_enabled.
//
// Source: Linux, Documentation/admin-guide/sysrq.rst.
func (m *Machine) SysRq(key byte) {
	m.t.Helper()
	m.monitor("chardev-send-break console")
	ctx, cancel := context.WithTimeout(m.t.Context(), 2*time.Second)
	defer cancel()
	if err := m.Machine.Console(ctx, &once{[]byte{key}, ctx}, io.Discard); err != nil {
		m.t.Fatalf("type a SysRq key: %v", err)
	}
}

// Plug adds a device to the running machine, in the words of QEMU's -device.
func (m *Machine) Plug(device string) { m.t.Helper(); m.monitor("device_add " + device) }

// Unplug asks the guest to let go of a device, and takes it out when it did.
func (m *Machine) Unplug(id string) { m.t.Helper(); m.monitor("device_del " + id) }

// monitor runs a command of QEMU's monitor that answers nothing.
func (m *Machine) monitor(command string) {
	m.t.Helper()
	if answer, err := m.Monitor(m.t.Context(), command); err != nil || answer != "" {
		m.t.Fatalf("%s: %q, %v", command, answer, err)
	}
}

// once is typed text after which nothing more comes for a while.
type once struct {
	text []byte
	ctx  context.Context
}

func (o *once) Read(p []byte) (int, error) {
	if len(o.text) == 0 {
		<-o.ctx.Done()
		return 0, io.EOF
	}
	n := copy(p, o.text)
	o.text = o.text[n:]
	return n, nil
}
