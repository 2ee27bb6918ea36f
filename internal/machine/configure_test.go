package machine_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/cli"
	"oscine.dev/oscine/internal/machine"
	"oscine.dev/oscine/internal/machine/machinetest"
)

// TestFirstConfiguration configures a machine that was started without a
// configuration, as a person does who reads its console, and starts it again.
func TestFirstConfiguration(t *testing.T) {
	t.Parallel()
	machinetest.Need(t)
	m := machinetest.Start(t, machine.Options{Direct: true})
	fingerprint := m.WaitConsole(`Its fingerprint is ([0-9a-f]{64})`, bootTimeout)[1]
	m.WaitConsole(readyLine, bootTimeout)

	dir, address := t.TempDir(), m.Addr(machinetest.APIPort)
	run := func(args ...string) (string, int) {
		var out bytes.Buffer
		code := cli.Run(append([]string{"--config", filepath.Join(dir, "config")}, args...), strings.NewReader(""), &out, &out)
		return out.String(), code
	}
	apply := []string{"config", "apply", "-f", filepath.Join(dir, "node1.yaml"), "--address", address, "--fingerprint"}
	for _, step := range []struct {
		args []string
		fail string
	}{
		{[]string{"config", "generate", "node1", "-o", dir, "--address", address}, ""},
		{append(apply, strings.Repeat("0", 64)), "someone is in between"},
		{append(apply, fingerprint), ""},
	} {
		if out, code := run(step.args...); (code != 0) != (step.fail != "") || !strings.Contains(out, step.fail) {
			t.Fatalf("oscine %s: exit status %d, %s", strings.Join(step.args, " "), code, out)
		}
	}
	m.WaitConsole(apiLine, bootTimeout)
	for _, again := range []bool{false, true} {
		if again {
			off := len(m.Console())
			if clean, err := m.Stop(t.Context()); err != nil || !clean {
				t.Fatalf("stop: clean %t, %v", clean, err)
			}
			m.Restart()
			m.WaitConsoleAfter(off, apiLine, bootTimeout)
		}
		m.WaitTLS(machinetest.APIPort, time.Minute)
		if out, code := run("info"); code != 0 || !strings.Contains(out, "node1") {
			t.Errorf("started again %t: info: exit status %d, %s", again, code, out)
		}
	}
	if out, code := run(append(apply, fingerprint)...); code == 0 || !strings.Contains(out, "the node is configured already") {
		t.Errorf("a second configuration: exit status %d, %s", code, out)
	}
	if out, code := run("logs", "system", "init"); code != 0 || !strings.Contains(out, "oscined is ready") {
		t.Errorf("logs system init: exit status %d, %s", code, out)
	}
}
