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

// TestJoin boots a machine with a manifest without a key, as an unattended one
// does, and has its certificate signed by the token alone.
func TestJoin(t *testing.T) {
	t.Parallel()
	machinetest.Need(t)
	dir := t.TempDir()
	run := func(args ...string) (string, int) {
		var out bytes.Buffer
		code := cli.Run(append([]string{"--config", filepath.Join(dir, "config")}, args...), strings.NewReader(""), &out, &out)
		return out.String(), code
	}
	file := filepath.Join(dir, "node1.yaml")
	if out, code := run("config", "generate", "node1", "-o", dir); code != 0 {
		t.Fatal(out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	m := machinetest.Start(t, machine.Options{Direct: true, Config: text})
	m.WaitConsole(`this node waits for its certificate`, bootTimeout)
	m.WaitConsole(readyLine, bootTimeout)
	if out, code := run("config", "apply", "-f", file, "--address", m.Addr(machinetest.APIPort)); code != 0 || !strings.Contains(out, "knows the join token") {
		t.Fatalf("exit status %d, %s", code, out)
	}
	m.WaitConsole(apiLine, bootTimeout)
	off := len(m.Console())
	if clean, err := m.Stop(t.Context()); err != nil || !clean {
		t.Fatalf("stop: clean %t, %v", clean, err)
	}
	m.Restart() // with the same manifest, which has no certificate still
	m.WaitConsoleAfter(off, apiLine, bootTimeout)
}

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
