package container

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestRun(t *testing.T) {
	r := withProbe(t)
	t.Logf("missing here: %s", strings.Join(r.Missing(), "\n"))
	got, status := output(t, r, Spec{ID: "first", Args: []string{"say", "hello", "complain", "oh", "id", "exit", "3"}})
	if want := "hello\n! oh\nid 65532 65532\n"; !sameLines(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if status.State != Exited || status.ExitCode != 3 || status.OOMKilled || status.StartedAt.IsZero() || status.ExitedAt.Before(status.StartedAt) {
		t.Errorf("status %+v", status)
	}
}

// sameLines compares without order: two streams have none between them.
func sameLines(a, b string) bool {
	count := map[string]int{}
	for line := range strings.SplitSeq(a, "\n") {
		count[line]++
	}
	for line := range strings.SplitSeq(b, "\n") {
		count[line]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

func TestStop(t *testing.T) {
	r := withProbe(t)
	if err := r.Start(t.Context(), Spec{ID: "polite", Image: probeName, Args: []string{"serve", "exit", "7"}}); err != nil {
		t.Fatal(err)
	}
	awaitLog(t, r, "polite", "ready")
	begin := time.Now()
	if err := r.Stop(t.Context(), "polite", 20*time.Second); err != nil {
		t.Fatal(err)
	}
	status, err := r.Status(t.Context(), "polite")
	if err != nil || status.ExitCode != 7 || !status.Stopped || time.Since(begin) > 10*time.Second {
		t.Errorf("%+v, %v after %v", status, err, time.Since(begin))
	}
}

// Only what was stopped says so.
func TestStoppedIsRecorded(t *testing.T) {
	r := withProbe(t)
	for id, stopped := range map[string]bool{"done": false, "stopped": true} {
		if err := r.Start(t.Context(), Spec{ID: id, Image: probeName, Args: []string{"serve", "exit", "0"}}); err != nil {
			t.Fatal(err)
		}
		awaitLog(t, r, id, "ready")
		end := func() error { return r.Kill(t.Context(), id, syscall.SIGTERM) }
		if stopped {
			end = func() error { return r.Stop(t.Context(), id, 20*time.Second) }
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Wait(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if err := r.Stop(t.Context(), id, time.Second); err != nil { // it has ended already
			t.Error(err)
		}
		if status, err := r.Status(t.Context(), id); err != nil || status.State != Exited || status.Stopped != stopped {
			t.Errorf("%+v, %v, want stopped %t", status, err, stopped)
		}
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

func TestStartIsIdempotent(t *testing.T) {
	r := withProbe(t)
	spec := Spec{ID: "same", Image: probeName, Args: []string{"serve"}}
	for range 2 {
		if err := r.Start(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
	}
	first, err := r.Status(t.Context(), "same")
	if err != nil {
		t.Fatal(err)
	}
	other := spec
	other.Env = []string{"A=b"}
	if err := r.Start(t.Context(), other); !errors.Is(err, ErrRunning) {
		t.Errorf("another Spec: %v", err)
	}
	if now, err := r.Status(t.Context(), "same"); err != nil || now.PID != first.PID || now.State != Running {
		t.Errorf("%+v, %v, want process %d", now, err, first.PID)
	}
	if err := r.Stop(t.Context(), "same", 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := r.Stop(t.Context(), "same", 0); err != nil {
		t.Errorf("stop what has ended: %v", err)
	}
	if err := r.Start(t.Context(), other); err != nil {
		t.Errorf("another Spec after the end: %v", err)
	}
}

// A start that is called off says nothing about the container: a daemon that ends
// while it takes its containers over must not end them.
func TestStartThatIsCalledOff(t *testing.T) {
	r := withProbe(t)
	spec := Spec{ID: "goes-on", Image: probeName, Args: []string{"serve"}}
	if err := r.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	first, err := r.Status(t.Context(), spec.ID)
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	r.locks.Lock(t.Context(), spec.ID) // it waits here until its context has ended
	started := make(chan error, 1)
	go func() { started <- r.Start(ended, spec) }()
	cancel()
	if err := <-started; !errors.Is(err, context.Canceled) {
		t.Errorf("while another call has the container: %v", err)
	}
	r.locks.Unlock(spec.ID)
	for range 20 { // an end at any moment
		ended, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Duration(rand.Int64N(int64(2*time.Millisecond))), cancel)
		if err := r.Start(ended, spec); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("called off: %v", err)
		}
		cancel()
	}
	if now, err := r.Status(t.Context(), spec.ID); err != nil || now.PID != first.PID || now.State != Running {
		t.Errorf("%+v, %v, want process %d", now, err, first.PID)
	}
}

func TestClearKeepsTheLog(t *testing.T) {
	r := withProbe(t)
	output(t, r, Spec{ID: "kept", Args: []string{"say", "hello"}})
	if err := r.Clear(t.Context(), "kept"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Status(t.Context(), "kept"); !errors.Is(err, ErrNotFound) {
		t.Errorf("cleared: %v", err)
	}
	if got := logOf(t, r, "kept"); got != "hello\n" {
		t.Errorf("its log holds %q", got)
	}
	if err := r.Delete(t.Context(), "kept"); !errors.Is(err, ErrNotFound) {
		t.Errorf("delete what is cleared: %v", err)
	}
	if _, err := os.Stat(r.LogPath("kept")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its log stays: %v", err)
	}
}

func TestStopKills(t *testing.T) {
	r := withProbe(t)
	if err := r.Start(t.Context(), Spec{ID: "rude", Image: probeName, Args: []string{"ignore"}}); err != nil {
		t.Fatal(err)
	}
	awaitLog(t, r, "rude", "ready")
	if err := r.Stop(t.Context(), "rude", 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if status, err := r.Status(t.Context(), "rude"); err != nil || status.ExitCode != 137 || status.OOMKilled {
		t.Errorf("%+v, %v", status, err)
	}
}

func TestEvents(t *testing.T) {
	r := withProbe(t)
	events := r.Events(t.Context())
	output(t, r, Spec{ID: "told", Args: []string{"exit", "4"}})
	if err := r.Delete(t.Context(), "told"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []Event{{Type: EventStarted}, {Type: EventExited, ExitCode: 4}, {Type: EventDeleted}} {
		select {
		case got := <-events:
			if got.Type != want.Type || got.ID != "told" || got.ExitCode != want.ExitCode || got.Time.IsZero() {
				t.Errorf("got %+v, want %+v", got, want)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("no event %s", want.Type)
		}
	}
}

func TestLimits(t *testing.T) {
	r := withProbe(t)
	cpus := "0"
	spec := Spec{ID: "eater", Args: []string{"say", "begin", "eat", "200", "say", "end"}, Limits: Limits{MemoryBytes: 64 << 20, CPUs: cpus, MilliCPU: 500, PIDs: 32}}
	got, status := output(t, r, spec)
	if status.ExitCode != 137 || !status.OOMKilled || got != "begin\n" {
		t.Errorf("%+v said %q, want a kill for want of memory", status, got)
	}
	got, _ = output(t, r, Spec{ID: "forker", Args: []string{"fork", "100", "status", "Cpus_allowed_list"}, Limits: Limits{PIDs: 40, CPUs: cpus}})
	want(t, got, "fork fork/exec /probe: resource temporarily unavailable", "Cpus_allowed_list: 0")
}

func TestLogsAreBounded(t *testing.T) {
	r := withProbe(t)
	got, status := output(t, r, Spec{ID: "flood", LogBytes: 256 << 10, Args: []string{"flood", "20000"}})
	if len(got) > 256<<10 || !strings.Contains(got, "flood 19999 ") || status.ExitCode != 0 {
		t.Errorf("%d bytes of log, %+v", len(got), status)
	}
}

func TestCreatedHook(t *testing.T) {
	r := withProbe(t)
	var seen int
	spec := Spec{ID: "hook", Args: []string{"say", "ran"}, Created: func(ctx context.Context, pid int) error {
		seen = pid
		if got := logOf(t, r, "hook"); got != "" {
			t.Errorf("the program ran before the hook: %q", got)
		}
		_, err := os.Stat("/proc/" + itoa(pid) + "/ns/net")
		return err
	}}
	if got, _ := output(t, r, spec); got != "ran\n" || seen == 0 {
		t.Errorf("said %q, hook saw process %d", got, seen)
	}
	spec.ID, spec.Image, spec.Created = "hooked", probeName, func(context.Context, int) error { return errors.New("no wire") }
	if err := r.Start(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "no wire") {
		t.Errorf("a hook's error is lost: %v", err)
	}
	if _, err := r.Status(t.Context(), "hooked"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a failed start leaves the container: %v", err)
	}
}

// mentions ignores case: runc and crun write the same errors differently.
func mentions(err error, reason string) bool {
	return strings.Contains(strings.ToLower(err.Error()), strings.ToLower(reason))
}

func TestBadSpecs(t *testing.T) {
	r := withProbe(t)
	bare := probeImage(t)
	bare.name, bare.config = "example.test/bare:1", ocispec.ImageConfig{}
	if _, err := r.Import(t.Context(), bytes.NewReader(archiveOf(t, bare))); err != nil {
		t.Fatal(err)
	}
	for reason, spec := range map[string]Spec{
		"an ID has":            {ID: "Not/An/ID", Image: probeName},
		"one of them":          {ID: "x"},
		"one of them ":         {ID: "x", Image: probeName, RootFS: "/"},
		"not on this node":     {ID: "x", Image: "example.test/absent"},
		"registry/path:tag":    {ID: "x", Image: "No Image"},
		"nothing to run":       {ID: "x", Image: bare.name},
		"no such file":         {ID: "x", Image: probeName, Entrypoint: []string{"/absent"}},
		"permi":                {ID: "x", Image: probeName, Entrypoint: []string{"/etc/passwd"}},
		"no device":            {ID: "x", Image: probeName, Devices: []string{"example.com/gpu=0"}},
		"CAP_SUPER":            {ID: "x", Image: probeName, Security: Security{AddCapabilities: []string{"SUPER"}}},
		"not an absolute path": {ID: "x", Image: probeName, Cwd: "data"},
		"neither host nor":     {ID: "x", Image: probeName, NetNS: "container"},
		"/run/netns/absent":    {ID: "x", Image: probeName, NetNS: "/run/netns/absent"},
		"below the root":       {ID: "x", Image: probeName, CgroupPath: "/"},
		"not a folder":         {ID: "x", RootFS: "/etc/passwd", Entrypoint: []string{"/x"}},
		"cpuset":               {ID: "x", Image: probeName, Limits: Limits{CPUs: "100000"}},
		"no such file or dir":  {ID: "x", RootFS: "/absent", Entrypoint: []string{"/x"}},
	} {
		err := r.Start(t.Context(), spec)
		if err == nil || !mentions(err, strings.TrimSpace(reason)) {
			t.Errorf("%+v: %v, want %q", spec, err, reason)
		}
	}
	if all, err := r.List(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("failed starts leave %+v, %v", all, err)
	}
	for _, dir := range []string{r.stateDir(""), r.layerDir(""), filepath.Join(r.config.State, "tasks", namespace)} {
		if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
			t.Errorf("failed starts leave %v in %s", entries, dir)
		}
	}
	for name, err := range map[string]error{
		"stop": r.Stop(t.Context(), "absent", 0), "delete": r.Delete(t.Context(), "absent"), "kill": r.Kill(t.Context(), "absent", 9),
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s what is not there: %v", name, err)
		}
	}
}
