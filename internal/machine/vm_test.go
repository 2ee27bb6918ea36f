package machine_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/cli"
	"oscine.dev/oscine/internal/machine"
	"oscine.dev/oscine/internal/machine/machinetest"
)

// bootTimeout is generous: under emulation on a loaded computer a boot takes
// minutes of wall-clock time.
const bootTimeout = 8 * time.Minute

// Lines that the tests wait for.
const (
	apiLine   = `oscined: API on .*`
	readyLine = `oscine-init: oscined is ready, ([0-9.]+) s after the kernel started`
)

// machineFile is a Machine manifest with fresh keys.
func machineFile(t *testing.T) []byte {
	t.Helper()
	return machineFileOf(t, filepath.Join(t.TempDir(), "config"))
}

// machineFileOf is machineFile that also writes a client configuration.
func machineFileOf(t *testing.T, config string) []byte {
	t.Helper()
	dir := t.TempDir()
	var out, errOut bytes.Buffer
	args := []string{"--config", config, "config", "generate", "node1", "--with-key", "-o", dir}
	if code := cli.Run(args, strings.NewReader(""), &out, &errOut); code != 0 {
		t.Fatalf("oscine config generate: exit status %d: %s", code, errOut.String())
	}
	raw, err := os.ReadFile(filepath.Join(dir, "node1.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestUEFIBoot goes the whole way of a real machine, for both architectures:
// firmware, boot loader, counted image, verified root, API, and the counter
// gone at the second start.
func TestUEFIBoot(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			t.Parallel()
			machinetest.Need(t)
			m := machinetest.Start(t, machine.Options{Arch: arch, Config: machineFile(t)})
			m.WaitConsole(`oscine-init: slot root-a on vda2 \(oscine_.*\+2-1\.efi\)`, bootTimeout)
			m.WaitConsole(apiLine, bootTimeout)
			report(t, m, "UEFI boot")
			m.WaitTLS(machinetest.APIPort, time.Minute)
			m.WaitConsole(`oscine-init: slot root-a is good: oscine_.*\+2-1\.efi is now oscine_[^+]*\.efi`, time.Minute)

			again := len(m.Console())
			if err := m.Reset(t.Context()); err != nil {
				t.Fatal(err)
			}
			m.WaitConsoleAfter(again, `oscine-init: slot root-a on vda2 \(oscine_[^+]*\.efi\)`, bootTimeout)
		})
	}
}

// TestStopDuringBoot presses the power button before PID 1 can notice.
func TestStopDuringBoot(t *testing.T) {
	t.Parallel()
	machinetest.Need(t)
	m := machinetest.Start(t, machine.Options{Direct: true, Config: machineFile(t)})
	m.WaitConsole(`oscine-init: slot root-a on vda2`, bootTimeout)
	if clean, err := m.Stop(t.Context()); err != nil || !clean {
		t.Errorf("clean %t, error %v; the console:\n%s", clean, err, m.Console())
	}
}

func report(t *testing.T, m *machinetest.Machine, what string) {
	t.Helper()
	cpu, err := m.CPUTime()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s of %s to the API: %.1f CPU-s (%s)", what, m.Options().Arch, cpu.Seconds(), m.Accel())
}

// TestLife is what init sees of a machine's life: a larger disk, the death of
// every process, the power button, and a second start.
func TestLife(t *testing.T) {
	t.Parallel()
	machinetest.Need(t)
	m := machinetest.Start(t, machine.Options{
		Direct: true, KernelArgs: "sysrq_always_enabled", DiskSize: 3 << 30, Config: machineFile(t),
	})
	m.WaitConsole(`oscine-init: slot root-a on vda2 \(started directly`, bootTimeout)
	m.WaitConsole(apiLine, bootTimeout)
	report(t, m, "direct boot")
	m.WaitConsole(`oscine-init: partition data on vda grown from \d+ to 2\d\d\d MiB`, time.Minute)
	m.WaitConsole(`oscine-init: data grown from \d+ to 2\d\d\d MiB`, time.Minute)
	m.WaitConsole(readyLine, time.Minute)

	killed := len(m.Console())
	m.SysRq('i')
	m.WaitConsoleAfter(killed, `oscine-init: oscined ended after .*SIGKILL`, time.Minute)
	m.WaitConsoleAfter(killed, readyLine, bootTimeout)

	if clean, err := m.Stop(t.Context()); err != nil || !clean {
		t.Errorf("the power button: clean %t, error %v", clean, err)
	}
	for _, line := range []string{"power button", "shutting down for poweroff", "oscined stopped (exit status 0)", "poweroff after"} {
		if !strings.Contains(m.Console()[killed:], line) {
			t.Errorf("the console lacks %q", line)
		}
	}

	off := len(m.Console())
	m.Restart()
	m.WaitConsoleAfter(off, readyLine, bootTimeout)
	if strings.Contains(m.Console()[off:], "grown") {
		t.Error("the data partition grew a second time")
	}
}
