package machine_test

import (
	"testing"
	"time"

	"oscine.dev/oscine/internal/machine"
	"oscine.dev/oscine/internal/machine/machinetest"
)

// bootTimeout is generous: under emulation on a loaded computer a boot takes
// more than a minute of wall-clock time.
const bootTimeout = 6 * time.Minute

// apiLine is what oscined prints when its API answers.
const apiLine = `oscined: API on .*`

func TestDirectBoot(t *testing.T) {
	t.Parallel()
	m := machinetest.Start(t, machine.Options{Direct: true})
	m.WaitConsole(`oscine-init: slot root-a on vda2 \(started directly`, bootTimeout)
	m.WaitConsole(apiLine, bootTimeout)
	cpu, err := m.CPUTime()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("direct boot to the API: %.1f CPU-s (%s)", cpu.Seconds(), m.Accel())
}
