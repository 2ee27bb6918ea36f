package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFill(t *testing.T) {
	tests := []struct {
		name    string
		options Options
		problem string // "" for none
	}{
		{"defaults", Options{Name: "a"}, ""},
		{"long name", Options{Name: strings.Repeat("a", 64)}, "machine name"},
		{"path as name", Options{Name: "../a"}, "machine name"},
		{"no name", Options{}, "machine name"},
		{"small memory", Options{Name: "a", Memory: 64 << 20}, "at least 128 MiB"},
		{"architecture", Options{Name: "a", Arch: "sparc"}, "use amd64 or arm64"},
		{"arguments without direct", Options{Name: "a", KernelArgs: "quiet"}, "--direct"},
		{"Secure Boot without firmware", Options{Name: "a", Direct: true, SecureBoot: true}, "needs firmware"},
		{"TPM without firmware", Options{Name: "a", Direct: true, TPM: true}, "--tpm needs firmware"},
		{"accelerator", Options{Name: "a", Accel: "fast"}, "use kvm or tcg"},
		{"port out of range", Options{Name: "a", Ports: []Port{{Guest: 70000}}}, "ports lie between"},
		{"port twice", Options{Name: "a", Ports: []Port{{Host: 80, Guest: 80}, {Host: 80, Guest: 81}}}, "asked for twice"},
		{"free ports", Options{Name: "a", Ports: []Port{{Guest: 80}, {Guest: 81}}}, ""},
	}
	for _, test := range tests {
		o := test.options
		o.StateDir = t.TempDir()
		err := o.fill()
		switch {
		case test.problem == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.problem != "" && (err == nil || !strings.Contains(err.Error(), test.problem)):
			t.Errorf("%s: got %v, want an error with %q", test.name, err, test.problem)
		case err == nil && (o.Memory == 0 || o.Arch == "" || o.CPUs == ""):
			t.Errorf("%s: defaults are missing: %+v", test.name, o)
		}
	}
}

func TestParseStat(t *testing.T) {
	raw := "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 123 77 0 0 20 0 1 0 987654 1000 10 18446744073709551615\n"
	got, err := parseStat([]byte(raw))
	want := processState{state: 'S', started: 987654, cpu: 2 * time.Second}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "42 (a)", "42 (a) S 1", strings.Replace(raw, "123", "x", 1)} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// sleeper starts a process of this test and returns the record of it.
func sleeper(t *testing.T) record {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Skipf("needs the program sleep: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have been killed already
		_ = cmd.Wait()
	})
	state, err := readProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return record{PID: cmd.Process.Pid, PIDStarted: state.started, BootID: bootID(), Options: Options{Name: "m"}}
}

func TestOnlyItsOwnProcess(t *testing.T) {
	mine := sleeper(t)
	if !mine.alive() {
		t.Fatal("the recorded process does not count as running")
	}
	other := mine
	other.PIDStarted++
	rebooted := mine
	rebooted.BootID = "another boot"
	for name, r := range map[string]record{"another process of that number": other, "before a restart of the host": rebooted} {
		if r.alive() {
			t.Errorf("%s counts as running", name)
		}
		if err := r.kill(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !mine.alive() {
		t.Fatal("a process that was not on record was killed")
	}
	if err := mine.kill(); err != nil {
		t.Fatal(err)
	}
	m := &Machine{record: mine}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := m.Wait(ctx); err != nil {
		t.Error(err)
	}
	if _, err := m.CPUTime(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("processor time of a dead machine: got %v", err)
	}
}

func TestOpenListDelete(t *testing.T) {
	state := t.TempDir()
	if _, err := Open(state, "m"); !errors.Is(err, ErrNotFound) {
		t.Errorf("open: got %v, want ErrNotFound", err)
	}
	m := &Machine{dir: filepath.Join(state, "m"), record: sleeper(t)}
	if err := m.claim(); err != nil {
		t.Fatal(err)
	}
	if err := m.record.write(m.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(state, "unfinished"), 0o700); err != nil {
		t.Fatal(err)
	}
	machines, err := List(state)
	if err != nil || len(machines) != 1 || machines[0].Name() != "m" || !machines[0].Running() {
		t.Fatalf("list: got %d machines, %v", len(machines), err)
	}
	if err := (&Machine{dir: m.dir, record: m.record}).claim(); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "it is running") {
		t.Errorf("take a name twice: got %v", err)
	}
	if err := machines[0].Delete(false); !errors.Is(err, ErrRunning) {
		t.Errorf("delete a running machine: got %v", err)
	}
	if err := machines[0].Delete(true); err != nil {
		t.Error(err)
	}
	if m.Running() {
		t.Error("the deleted machine runs on")
	}
	if _, err := os.Stat(m.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its folder is left: %v", err)
	}
	if _, err := m.Stop(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("stop: got %v, want ErrNotRunning", err)
	}
}

func TestChoosePorts(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	if PortFree(port) {
		t.Error("a taken port counts as free")
	}
	_, _, err = choosePorts([]Port{{Host: port, Guest: 80}})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("port %d of this computer is taken", port)) {
		t.Errorf("a taken port: got %v", err)
	}
	ports, chosen, err := choosePorts([]Port{{Guest: 80}, {Host: port, Guest: 81, Chosen: true}})
	if err != nil || chosen != 2 {
		t.Fatalf("got %v, %d chosen, %v", ports, chosen, err)
	}
	if ports[0].Host == 0 || ports[1].Host == port || ports[0].Host == ports[1].Host || ports[1].Guest != 81 {
		t.Errorf("got %v", ports)
	}
}

func TestArguments(t *testing.T) {
	m := &Machine{dir: t.TempDir(), record: record{Accel: "tcg", Options: Options{
		Name: "m", Arch: "amd64", Direct: true, KernelArgs: "quiet", Memory: 1 << 30, CPUs: "4,sockets=2", Volatile: true,
		Ports: []Port{{Host: 1234, Guest: 80}}, ExtraArgs: []string{"-S"},
	}}}
	for name, text := range map[string]string{commandLineFile: "a=b", configFile: "kind: Machine"} {
		if err := os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args, err := m.arguments(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Join(args, " ")
	for _, want := range []string{
		"-m 1024M -smp 4,sockets=2", "-append a=b quiet", "hostfwd=tcp:127.0.0.1:1234-:80", "cache=unsafe",
		"-cpu max -accel tcg,thread=multi", "-fw_cfg name=opt/oscine/machine,file=config.yaml", "-device i6300esb",
	} {
		if !strings.Contains(line, want) {
			t.Errorf("%q is missing in %s", want, line)
		}
	}
	if args[len(args)-1] != "-S" {
		t.Errorf("the caller's arguments are not last: %s", line)
	}
	if strings.Contains(line, "-incoming") || !strings.Contains(line, "vmgenid,guid=auto") {
		t.Errorf("a machine that is booted waits for a state, or has no identifier of its generation: %s", line)
	}
	m.resumes = true
	if args, err = m.arguments(t.Context()); err != nil || !strings.Contains(strings.Join(args, " "), "-incoming defer") {
		t.Errorf("a machine that is resumed does not wait for its state: %q, %v", args, err)
	}
	secure := strings.Join(platform(Options{Arch: "amd64", SecureBoot: true, TPM: true}, "kvm"), " ")
	for _, want := range []string{"q35,smm=on", "driver=cfi.pflash01,property=secure,value=on", "path=tpm.sock", "tpm-crb,tpmdev=tpm0"} {
		if !strings.Contains(secure, want) {
			t.Errorf("%q is missing in %s", want, secure)
		}
	}
	got := platform(Options{Arch: "arm64", ICount: "3"}, "tcg")
	want := []string{"-M", "virt,gic-version=3", "-cpu", "max,pauth-impdef=on", "-accel", "tcg,thread=single", "-icount", "shift=3,sleep=off"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counting instructions on arm64 (-want +got):\n%s", diff)
	}
}

func TestTyped(t *testing.T) {
	var sent strings.Builder
	if err := typed(&sent, strings.NewReader("abc\x1ddef")); err != nil {
		t.Error(err)
	}
	if sent.String() != "abc" {
		t.Errorf("sent %q, want what stands before Ctrl-]", sent.String())
	}
}
