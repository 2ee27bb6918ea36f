package container

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"oscine.dev/oscine/internal/journal"
)

// programs builds, once, what the tests run: the shim, the logger and probe.
var programs = sync.OnceValues(func() (string, error) {
	for name, pkg := range map[string]string{
		"containerd-shim-runc-v2": "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
		"oscine-log":              "oscine.dev/oscine/cmd/oscine-log",
		"probe":                   "./testdata/probe",
	} {
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(programDir, name), pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	return programDir, nil
})

// ociRuntime finds runc or crun: OSCINE_RUNTIME, what make built, or the
// system's.
func ociRuntime() string {
	built, _ := filepath.Abs(filepath.Join("..", "..", "out", "bin", "runc"))
	for _, path := range []string{os.Getenv("OSCINE_RUNTIME"), built} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	for _, name := range []string{"runc", "crun"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func testConfig(t testing.TB) Config {
	t.Helper()
	if testing.Short() {
		t.Skip("skipped with -short: starts containers")
	}
	if os.Getuid() != 0 {
		t.Skip("skipped: containers need root")
	}
	path := ociRuntime()
	if path == "" {
		t.Skip("skipped: no runc or crun (make build makes it)")
	}
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	state, err := os.MkdirTemp("/run", "oscine-test") // a short path: sockets live there
	if err != nil {
		t.Skipf("skipped: /run is not writable: %v", err)
	}
	root := t.TempDir()
	t.Cleanup(func() { os.RemoveAll(state) })
	return Config{
		Root: filepath.Join(root, "containerd"), State: state, LogDir: filepath.Join(root, "log"),
		RuntimePath: path, ShimPath: filepath.Join(dir, "containerd-shim-runc-v2"), LoggerPath: filepath.Join(dir, "oscine-log"),
		CgroupRoot: cgroupOfTests,
		Allow:      []string{"*"},
		CDIDirs:    []string{filepath.Join(root, "cdi")},
		Logger:     slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

// testWriter logs until the test is over.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Logf("%s", bytes.TrimSpace(b))
	}
	return len(b), nil
}

func openRuntime(t testing.TB, config Config) *Runtime {
	t.Helper()
	r, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		all, _ := r.List(context.Background())
		for _, status := range all {
			r.Delete(context.Background(), status.ID)
		}
		r.Close()
	})
	return r
}

const (
	probeName = "example.test/probe:1"
	probeArch = runtime.GOARCH
)

// probeImage holds the probe as its entrypoint, and a few files.
func probeImage(t testing.TB) testImage {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(filepath.Join(dir, "probe"))
	if err != nil {
		t.Fatal(err)
	}
	return testImage{
		name:   probeName,
		config: ocispec.ImageConfig{Entrypoint: []string{"/probe"}, Env: []string{"FROM=image", "BOTH=image"}},
		layers: [][]byte{
			layer(t, file{name: "probe", content: string(program), mode: 0o755}),
			layer(t,
				file{name: "etc/passwd", content: "root:x:0:0::/:\nweb:x:1000:1001::/:\n"},
				file{name: "etc/group", content: "web:x:1001:\nextra:x:1002:web\n"},
				file{name: "data/mine", content: "hello\n", uid: 1000, gid: 1001, mode: 0o600}),
		},
	}
}

func withProbe(t testing.TB) *Runtime {
	t.Helper()
	r := openRuntime(t, testConfig(t))
	if _, err := r.Import(t.Context(), bytes.NewReader(archiveOf(t, probeImage(t)))); err != nil {
		t.Fatal(err)
	}
	return r
}

// output runs a container to its end and returns its lines and status.
func output(t testing.TB, r *Runtime, spec Spec) (string, Status) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if spec.Image == "" && spec.RootFS == "" {
		spec.Image = probeName
	}
	if err := r.Start(ctx, spec); err != nil {
		t.Fatal(err)
	}
	status, err := r.Wait(ctx, spec.ID)
	if err != nil {
		t.Fatal(err)
	}
	return logOf(t, r, spec.ID), status
}

func logOf(t testing.TB, r *Runtime, id string) string {
	t.Helper()
	var text strings.Builder
	err := journal.Read(t.Context(), r.LogPath(id), journal.Query{}, func(line journal.Line) error {
		if line.Stream == journal.Stderr {
			text.WriteString("! ")
		}
		text.WriteString(line.Text + "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// awaitLog waits until a container has said text.
func awaitLog(t testing.TB, r *Runtime, id, text string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if strings.Contains(logOf(t, r, id), text) {
			return
		}
	}
	status, err := r.Status(t.Context(), id)
	t.Fatalf("container %s never said %q, but\n%s(%+v, %v)", id, text, logOf(t, r, id), status, err)
}
