package machine_test

import (
	"testing"
	"time"

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

func TestDirectBoot(t *testing.T) {
	t.Parallel()
	m := machinetest.Start(t, machine.Options{Direct: true})
	m.WaitConsole(`oscine-init: slot root-a on vda2 \(started directly`, bootTimeout)
	m.WaitConsole(apiLine, bootTimeout)
	report(t, m, "direct boot")
}

// TestUEFIBoot goes the whole way of a real machine, for both architectures:
// firmware, boot loader, counted image, verified root, API, and the counter
// gone afterwards.
func TestUEFIBoot(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			t.Parallel()
			m := machinetest.Start(t, machine.Options{Arch: arch})
			m.WaitConsole(`oscine-init: slot root-a on vda2 \(oscine_.*\+2-1\.efi\)`, bootTimeout)
			m.WaitConsole(apiLine, bootTimeout)
			report(t, m, "UEFI boot")
			m.WaitConsole(`oscine-init: slot root-a is good: (oscine_.*\+2-1\.efi) is now (oscine_[^+]*\.efi)`, time.Minute)

			again := len(m.Console())
			if err := m.Reset(t.Context()); err != nil {
				t.Fatal(err)
			}
			m.WaitConsoleAfter(again, `oscine-init: slot root-a on vda2 \(oscine_[^+]*\.efi\)`, bootTimeout)
		})
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
