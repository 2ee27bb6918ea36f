package guesttest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"oscine.dev/oscine/internal/bench/guest"
)

// Need skips a test that boots a guest where that is not asked for, and in the
// guest itself.
func Need(t *testing.T) {
	t.Helper()
	if os.Getenv("OSCINE_VM_TESTS") != "1" {
		t.Skip("boots a machine: set OSCINE_VM_TESTS=1, or use make test")
	}
	if guest.Inside() {
		t.Skip("is inside one")
	}
}

// NeedGuest skips a test that changes the whole machine outside a guest.
func NeedGuest(t *testing.T) {
	t.Helper()
	if !guest.Inside() {
		t.Skip("changes the whole machine: runs inside the guest of TestInMachine")
	}
}

// Program builds the test program of the package under test for an
// architecture, static, so that it can be a guest's init. "" is this
// computer's.
func Program(t *testing.T, arch string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "init.test")
	build := exec.Command("go", "test", "-c", "-ldflags", "-s -w", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if arch != "" {
		build.Env = append(build.Env, "GOARCH="+arch)
	}
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the test program: %v\n%s", err, out)
	}
	return program
}

// RunKernelTests boots a guest that runs the tests named TestKernel… of the
// package under test, or those that match OSCINE_GUEST_RUN, and logs what they
// say. Its clock counts instructions, so that what tests measure does not
// depend on what else this computer does. A guest that does not come up is
// booted once more: one in some fifty did not while QEMU ran a thread for each
// CPU. The options need no Init and Args. limit is of the guest's time and of
// this computer's.
func RunKernelTests(t *testing.T, o guest.Options, limit time.Duration) {
	t.Helper()
	run := "^TestKernel"
	if only := os.Getenv("OSCINE_GUEST_RUN"); only != "" {
		run = only
	}
	o.Init = Program(t, o.Arch)
	o.ICount, o.Shift, o.Turn = true, 3, 400 // 125 million instructions a second
	o.Args = []string{"-test.v", "-test.timeout=" + (limit - time.Minute).String(), "-test.run=" + run}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	console := &testLog{t: t}
	err := guest.Run(ctx, o, console)
	if err != nil && ctx.Err() == nil && !console.began {
		t.Logf("the guest did not come up, it is booted once more: %v", err)
		err = guest.Run(ctx, o, console)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// testLog logs a guest's console.
type testLog struct {
	t     *testing.T
	began bool // the tests
}

func (l *testLog) Write(line []byte) (int, error) {
	l.began = l.began || bytes.HasPrefix(line, []byte("=== RUN"))
	l.t.Logf("%s", line)
	return len(line), nil
}
