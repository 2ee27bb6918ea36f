package container

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// programDir is where programs builds, a folder of this process.
var programDir = filepath.Join(os.TempDir(), fmt.Sprintf("oscine-container-test-%d", os.Getpid()))

// cgroupOfTests is this process's own: runtimes kill what they find in a cgroup
// that they delete.
var cgroupOfTests = fmt.Sprintf("/oscine.slice/test-%d", os.Getpid())

// A daemon of these tests is this test binary in another process, which can be
// killed at any moment. It opens the runtime and obeys lines of JSON: a Spec to
// start.
const daemonEnv = "OSCINE_TEST_DAEMON"

func TestMain(m *testing.M) {
	if text := os.Getenv(daemonEnv); text != "" {
		if err := daemon(text); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	os.RemoveAll(programDir)
	for _, pattern := range []string{cgroupRoot + cgroupOfTests, cgroupRoot + "/*" + cgroupOfTests} {
		dirs, _ := filepath.Glob(pattern)
		for _, dir := range dirs {
			os.Remove(dir)
		}
	}
	os.Exit(code)
}

func daemon(text string) error {
	var config Config
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return err
	}
	r, err := Open(context.Background(), config)
	if err != nil {
		return err
	}
	fmt.Println("open")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var spec Spec
		if err := json.Unmarshal(lines.Bytes(), &spec); err != nil {
			return err
		}
		if err := r.Start(context.Background(), spec); err != nil {
			return err
		}
		fmt.Println("started", spec.ID)
	}
	return nil
}

// process is a running daemon.
type process struct {
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Scanner
}

func startDaemon(t *testing.T, config Config) *process {
	t.Helper()
	config.Logger = nil
	text := marshal(t, struct {
		Config
		Room *struct{} `json:",omitempty"` // hides a function, which no other process can call
	}{Config: config})
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), daemonEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd, in, bufio.NewScanner(out)}
	t.Cleanup(func() { p.kill() })
	p.expect(t, "open")
	return p
}

func (p *process) expect(t *testing.T, line string) {
	t.Helper()
	if !p.out.Scan() || p.out.Text() != line {
		t.Fatalf("the daemon said %q, want %q", p.out.Text(), line)
	}
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// importProbe stores the probe's image, and closes.
func importProbe(t *testing.T, config Config) {
	t.Helper()
	r, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Import(t.Context(), strings.NewReader(string(archiveOf(t, probeImage(t))))); err != nil {
		t.Fatal(err)
	}
}

func TestContainersSurviveTheDaemon(t *testing.T) {
	config := testConfig(t)
	importProbe(t, config)
	p := startDaemon(t, config)
	for _, spec := range []Spec{
		{ID: "lasting", Image: probeName, Args: []string{"serve", "exit", "5"}},
		{ID: "ending", Image: probeName, Args: []string{"say", "go", "sleep", "1", "flood", "5000", "exit", "6"}},
	} {
		fmt.Fprintf(p.in, "%s\n", marshal(t, spec))
		p.expect(t, "started "+spec.ID)
	}
	p.kill()
	time.Sleep(3 * time.Second) // ending ends, and says much, with nobody there
	r := openRuntime(t, config)
	status, err := r.Wait(t.Context(), "ending")
	if err != nil || status.ExitCode != 6 || time.Since(status.ExitedAt) < time.Second {
		t.Errorf("%+v, %v, want exit 6 at its own time", status, err)
	}
	if said := logOf(t, r, "ending"); !strings.Contains(said, "flood 4999 ") {
		t.Errorf("output is lost: %d bytes", len(said))
	}
	status, err = r.Status(t.Context(), "lasting")
	if err != nil || status.State != Running || status.PID == 0 {
		t.Fatalf("%+v, %v, want it running", status, err)
	}
	if err := r.Start(t.Context(), Spec{ID: "lasting", Image: probeName, Args: []string{"serve", "exit", "5"}}); err != nil {
		t.Errorf("the same Spec: %v", err)
	}
	if code, err := r.Exec(t.Context(), "lasting", Exec{Args: []string{"/probe", "exit", "8"}}); code != 8 || err != nil {
		t.Errorf("exec after the restart: %d, %v", code, err)
	}
	if err := r.Stop(t.Context(), "lasting", 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if status, err := r.Status(t.Context(), "lasting"); err != nil || status.ExitCode != 5 {
		t.Errorf("%+v, %v", status, err)
	}
	if said := logOf(t, r, "lasting"); said != "ready\nbye\n" {
		t.Errorf("said %q", said)
	}
}

// TestKilledAtAnyInstant kills the daemon at a different moment of each start.
func TestKilledAtAnyInstant(t *testing.T) {
	config := testConfig(t)
	importProbe(t, config)
	for i := range 16 {
		p := startDaemon(t, config)
		spec := Spec{ID: "torn", Image: probeName, Args: []string{"serve"}, Env: []string{"ROUND=" + fmt.Sprint(i)}}
		fmt.Fprintf(p.in, "%s\n", marshal(t, spec))
		time.Sleep(time.Duration(i) * 15 * time.Millisecond)
		p.kill()
		r, err := Open(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		status, err := r.Status(t.Context(), "torn")
		t.Logf("after %d ms: %s %v", i*15, status.State, err)
		if err == nil && status.State == Created {
			t.Errorf("a start is left half done: %+v", status)
		}
		if err == nil && status.State == Running {
			// The kill may have cut the start itself short: then it ends at once.
			if _, err := r.Exec(t.Context(), "torn", Exec{Args: []string{"/probe", "say", "x"}}); errors.Is(err, ErrNotRunning) {
				if _, err := r.Wait(t.Context(), "torn"); err != nil {
					t.Error(err)
				}
			} else if err != nil {
				t.Errorf("it runs, and yet: %v", err)
			}
			if err := r.Stop(t.Context(), "torn", 5*time.Second); err != nil {
				t.Error(err)
			}
		}
		if err := r.Start(t.Context(), spec); err != nil {
			t.Errorf("start again: %v", err)
		}
		if err := r.Delete(t.Context(), "torn"); err != nil {
			t.Errorf("delete: %v", err)
		}
		r.Close()
		for _, dir := range []string{r.stateDir(""), filepath.Join(config.State, "tasks", namespace), filepath.Join(config.State, "runtime", namespace)} {
			if left, err := filepath.Glob(filepath.Join(dir, "[a-z0-9]*")); err != nil || len(left) > 0 {
				t.Errorf("round %d leaves %v, %v", i, left, err)
			}
		}
		if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), config.State) {
			t.Errorf("round %d leaves mounts, %v", i, err)
		}
	}
}

func TestReboot(t *testing.T) {
	config := testConfig(t)
	importProbe(t, config)
	p := startDaemon(t, config)
	fmt.Fprintf(p.in, "%s\n", marshal(t, Spec{ID: "gone", Image: probeName, Args: []string{"serve"}}))
	p.expect(t, "started gone")
	p.kill()
	r, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	status, err := r.Status(t.Context(), "gone")
	if err != nil || status.State != Running {
		t.Fatalf("%+v, %v", status, err)
	}
	if err := r.Stop(t.Context(), "gone", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	// As after a reboot: the record says that it runs, and all of State is new.
	ctx := r.context(t.Context())
	_, rec, err := r.container(ctx, "gone")
	if err != nil {
		t.Fatal(err)
	}
	rec.Exit = nil
	if err := r.engine.keep(ctx, "gone", rec); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := os.RemoveAll(config.State); err != nil {
		t.Fatal(err)
	}
	again := openRuntime(t, config)
	status, err = again.Status(t.Context(), "gone")
	if err != nil || status.State != Exited || status.ExitCode != -1 {
		t.Errorf("%+v, %v, want an exit that nobody saw", status, err)
	}
	if err := again.Start(t.Context(), Spec{ID: "gone", Image: probeName, Args: []string{"serve"}}); err != nil {
		t.Error(err)
	}
}

func TestShimKilled(t *testing.T) {
	r := serving(t, Spec{})
	status, err := r.Status(t.Context(), "box")
	if err != nil {
		t.Fatal(err)
	}
	pid := shims(r.config)["box"]
	if pid == 0 {
		t.Fatal("the container has no shim")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if after, err := r.Wait(ctx, "box"); err != nil || after.ExitCode == 0 {
		t.Errorf("%+v, %v, want a failure", after, err)
	}
	for syscall.Kill(status.PID, 0) == nil {
		if ctx.Err() != nil {
			t.Fatal("the container goes on without its shim")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := r.Start(t.Context(), Spec{ID: "box", Image: probeName, Args: []string{"serve"}}); err != nil {
		t.Error(err)
	}
}

func TestOneOwner(t *testing.T) {
	config := testConfig(t)
	startDaemon(t, config)
	if _, err := Open(t.Context(), config); err == nil || !strings.Contains(err.Error(), "another oscined") {
		t.Errorf("a second owner: %v", err)
	}
}

func TestBadConfig(t *testing.T) {
	good := Config{Root: "/tmp/a", State: "/tmp/b", LogDir: "/tmp/c", RuntimePath: os.Args[0], ShimPath: os.Args[0], LoggerPath: os.Args[0], Logger: slog.Default()}
	for reason, change := range map[string]func(*Config){
		"absolute":   func(c *Config) { c.Root = "x" },
		"40 bytes":   func(c *Config) { c.State = "/" + strings.Repeat("x", 50) },
		"oscine-log": func(c *Config) { c.LoggerPath = "/absent" },
		"crun":       func(c *Config) { c.RuntimePath = "" },
	} {
		config := good
		change(&config)
		if _, err := Open(t.Context(), config); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%v, want %q", err, reason)
		}
	}
}
