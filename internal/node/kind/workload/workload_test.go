package workload

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/disk"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/node/sandbox/sandboxtest"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
)

// bench is a workload on a machine in memory.
type bench struct {
	*sandboxtest.Machine
	c       reconcile.Controller
	have    map[string]string // images, by reference
	pull    error
	full    error
	held    error // by the disk
	secrets map[string]map[string][]byte
	packs   map[string]*pack.Info

	mu     sync.Mutex
	phases []string
	events []string
}

func newBench(t *testing.T) *bench {
	b := &bench{Machine: sandboxtest.New(t), have: map[string]string{"x": "docker.io/library/x:latest"}}
	b.c = New(&Options{
		Sandbox: b.Sandbox, Images: b, Packs: fakePacks{b}, Secrets: b, Disk: fakeDisk{b}, Volumes: t.TempDir(), Inference: "/run/oscine/inference/workloads", Log: slog.New(slog.DiscardHandler), Now: time.Now,
	}, web, b)
	return b
}

var web = object.Key{Kind: object.KindWorkload, Name: "web"}

func parse(t *testing.T, spec string) *object.Workload {
	t.Helper()
	objects, err := object.Kinds().Parse(strings.NewReader("apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: web}\nspec: {image: x" + spec + "}\n"))
	if err != nil {
		t.Fatal(err)
	}
	return objects[0].(*object.Workload)
}

func (b *bench) Find(_ context.Context, ref string) (string, error) { return b.have[ref], nil }

func (b *bench) Pull(_ context.Context, ref string, progress func(string)) (string, error) {
	progress("half of " + ref)
	return ref, b.pull
}

func (b *bench) Phase(phase object.Phase, message string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.phases = append(b.phases, strings.TrimSpace(string(phase)+" "+message))
}

func (b *bench) Changed() {}

func (b *bench) Event(reason, message string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, reason+": "+message)
}

func (b *bench) said() (phases, events []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.phases), slices.Clone(b.events)
}

func (b *bench) status() *object.WorkloadStatus {
	return b.c.Status(object.Observed{Phase: object.Running, Restarts: 2}).(*object.WorkloadStatus)
}

type fakePacks struct{ b *bench }

func (p fakePacks) Mount(name string) (*pack.Info, string, error) {
	if info := p.b.packs[name]; info != nil {
		return info, "/run/oscine/packs/" + name, nil
	}
	return nil, "", pack.ErrNotInstalled
}

// A workload runs the tool of a pack that is installed, and waits for one that is not.
func TestPackInPlaceOfAnImage(t *testing.T) {
	b := newBench(t)
	w := parse(t, "")
	w.Spec.Image, w.Spec.Pack, w.Spec.Args = "", "tool", []string{"--now"}
	if err := b.c.Up(t.Context(), w); !errors.Is(err, pack.ErrNotInstalled) {
		t.Errorf("without the pack: got %v", err)
	}
	b.packs = map[string]*pack.Info{"tool": {Manifest: pack.Manifest{Name: "tool", Engines: []string{"e"}, Entrypoint: []string{"/usr/bin/e"}}}}
	if err := b.c.Up(t.Context(), w); err == nil || !strings.Contains(err.Error(), "the pack tool holds no tool") {
		t.Errorf("with a pack of an engine: got %v", err)
	}
	b.packs["tool"].Engines, b.packs["tool"].Tools = nil, []string{"tool"}
	if err := b.c.Up(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	spec := b.Running()["workload-web"]
	if spec.Image != "" || spec.RootFS != "/run/oscine/packs/tool" || !slices.Equal(spec.Entrypoint, []string{"/usr/bin/e"}) || !slices.Equal(spec.Args, []string{"--now"}) {
		t.Errorf("container %+v", spec)
	}
}

type fakeDisk struct{ b *bench }

func (d fakeDisk) Admit(object.Key) error                        { return d.b.held }
func (d fakeDisk) Claim(object.Key, string, string, int64) error { return nil }
func (d fakeDisk) Forget(object.Key)                             {}
func (d fakeDisk) Held(object.Key) []disk.Holding                { return []disk.Holding{{Name: "volume v"}} }
func (d fakeDisk) Room() error                                   { return d.b.full }

func TestLifeOfAWorkload(t *testing.T) {
	b := newBench(t)
	w := parse(t, ", env: {B: '2', A: '1'}, volumes: [{name: data, path: /data, size: 1Mi}, {name: ro, path: /ro, readOnly: true}], security: {writableRoot: true}")
	if err := b.c.Up(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	spec := b.Running()["workload-web"]
	if !slices.Equal(spec.Env, []string{"A=1", "B=2"}) || len(spec.Mounts) != 2 || spec.NetNS == "" || spec.Image != "docker.io/library/x:latest" {
		t.Errorf("container %+v", spec)
	}
	st := b.status()
	if st.PID == 0 || st.Address != "127.0.0.1" || st.Restarts != 2 || st.Placement == nil || len(st.Storage) != 1 || st.StartedAt == nil || st.Isolation == nil {
		t.Errorf("status %+v", st)
	}
	phases, events := b.said()
	if phases[len(phases)-1] != "Running" || len(events) != 1 || !strings.HasPrefix(events[0], "Started: on CPUs") {
		t.Errorf("phases %q, events %q", phases, events)
	}
	// A daemon that starts again leaves it as it is and tells no start.
	if err := b.c.Up(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if _, events := b.said(); len(events) != 1 {
		t.Errorf("events %q, want one start", events)
	}
	b.End("workload-web", 3, false)
	if err := b.c.Attend(t.Context(), w); err == nil || err.Error() != "ended with exit code 3" {
		t.Errorf("it ended: %v", err)
	}
	if st := b.status(); st.ExitCode == nil || *st.ExitCode != 3 || st.PID != 0 {
		t.Errorf("status %+v", st)
	}
	if err := b.c.Up(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	b.End("workload-web", 137, true)
	if err := b.c.Attend(t.Context(), w); err == nil || !strings.Contains(err.Error(), "memory limit") {
		t.Errorf("out of memory: %v", err)
	}
	if err := errors.Join(b.c.Stop(t.Context(), w), b.c.Halt(t.Context(), w)); err != nil || len(b.Left()) != 0 {
		t.Errorf("stopped: %v, left %v", err, b.Left())
	}
	if st := b.status(); st.PID != 0 || st.Address != "" || st.Placement != nil || st.StartedAt != nil {
		t.Errorf("status when stopped %+v", st)
	}
	if err := b.c.Up(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.c.Stop(t.Context(), w), b.c.Remove(t.Context(), w)); err != nil || len(b.Left()) != 0 {
		t.Errorf("removed: %v, left %v", err, b.Left())
	}
	if err := b.c.Remove(t.Context(), nil); err != nil {
		t.Errorf("one whose manifest cannot be read: %v", err)
	}
}

// Work that is done gives back its CPUs, also when an earlier daemon saw the end.
func TestFinishedWork(t *testing.T) {
	b := newBench(t)
	job := parse(t, ", restart: on-failure, resources: {cpu: '2', cpuPolicy: exclusive}")
	if err := b.c.Up(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- b.c.Attend(t.Context(), job) }()
	b.End("workload-web", 0, false)
	if err := <-ended; !errors.Is(err, reconcile.ErrFinished) || b.Freed() != 1 {
		t.Errorf("got %v, freed %d times", err, b.Freed())
	}
	if _, events := b.said(); events[len(events)-1] != "Exited: exit code 0" {
		t.Errorf("events %q", events)
	}
	if err := b.c.Up(t.Context(), job); !errors.Is(err, reconcile.ErrFinished) {
		t.Errorf("finished before: %v", err)
	}
	if err := b.c.Up(t.Context(), parse(t, ", restart: on-failure, args: [more]")); err != nil {
		t.Errorf("another manifest: %v", err)
	}
}

func TestImages(t *testing.T) {
	b := newBench(t)
	b.have = nil
	b.full = errors.New("the data partition is nearly full")
	w := parse(t, "")
	if err := b.c.Up(t.Context(), w); !errors.Is(err, b.full) {
		t.Errorf("pulled without room: %v", err)
	}
	b.full, b.pull = nil, errors.New("no such host")
	if err := b.c.Up(t.Context(), w); !errors.Is(err, b.pull) {
		t.Errorf("got %v", err)
	}
	b.pull = nil
	if err := b.c.Up(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if phases, _ := b.said(); !slices.Contains(phases, "Pulling half of x") {
		t.Errorf("phases %q", phases)
	}
}

// A workload that has ended is told as that, not as one with a failed check.
func TestCrashIsNotAFailedCheck(t *testing.T) {
	b := newBench(t)
	w := parse(t, ", health: {exec: [check], interval: 100ms, timeout: 1s, retries: 1}")
	if err := b.c.Up(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	b.Exec(func(container.Exec) (int, error) {
		b.End("workload-web", 42, false) // it crashes, and so its check fails
		return 0, container.ErrNotRunning
	})
	if err := b.c.Attend(t.Context(), w); err == nil || err.Error() != "ended with exit code 42" {
		t.Errorf("got %v, want its exit code", err)
	}
}

func TestSickWorkloadIsStopped(t *testing.T) {
	b := newBench(t)
	w := parse(t, ", health: {exec: [check], interval: 100ms, timeout: 1s, retries: 3}")
	if err := b.c.Up(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	calls := 0
	b.Exec(func(container.Exec) (int, error) {
		if calls++; calls == 2 {
			return 1, nil
		}
		return min(calls/4, 1), nil // well, sick, well, then sick for good
	})
	err := b.c.Attend(t.Context(), w)
	if err == nil || !strings.Contains(err.Error(), `stopped because its health check failed: "check" ended with exit code 1`) {
		t.Errorf("got %v", err)
	}
	if len(b.Running()) != 0 || b.status().ExitCode == nil {
		t.Errorf("it runs, or its end is not known: %+v", b.status())
	}
	_, events := b.said()
	if got := strings.Join(events, "\n"); !strings.Contains(got, "Healthy: its check succeeds again") || !strings.Contains(got, "Unhealthy: ") {
		t.Errorf("events:\n%s", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.c.Up(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if err := b.c.Attend(ctx, w); !errors.Is(err, context.Canceled) || len(b.Running()) != 1 {
		t.Errorf("attended until %v, running %v", err, b.Running())
	}
}

// What the node stops, because another needs its place, has not finished: it
// starts again, also under the next daemon and whatever its policy. What was sick
// does too, except where it is never to restart.
func TestStoppedByTheNodeIsNotFinished(t *testing.T) {
	for _, policy := range []string{"never", "on-failure", "always"} {
		for _, graceful := range []bool{false, true} {
			b := newBench(t)
			if graceful {
				b.Graceful()
			}
			w := parse(t, ", restart: "+policy)
			if err := b.c.Up(t.Context(), w); err != nil {
				t.Fatal(err)
			}
			if err := b.c.Stop(t.Context(), w); err != nil {
				t.Fatal(err)
			}
			next := b.nextDaemon(t)
			if err := next.Up(t.Context(), w); err != nil || len(b.Running()) != 1 {
				t.Errorf("%s, ends well %t: %v, running %v", policy, graceful, err, b.Running())
			}
		}
	}
	for policy, again := range map[string]bool{"always": true, "on-failure": true, "never": false} {
		b := newBench(t)
		w := parse(t, ", restart: "+policy+", health: {exec: [check], interval: 100ms, timeout: 1s, retries: 1}")
		if err := b.c.Up(t.Context(), w); err != nil {
			t.Fatal(err)
		}
		calls := 0
		b.Exec(func(container.Exec) (int, error) { calls++; return min(calls-1, 1), nil })
		b.Graceful()
		if err := b.c.Attend(t.Context(), w); err == nil || !strings.Contains(err.Error(), "its health check failed") {
			t.Errorf("%s: got %v", policy, err)
		}
		err := b.nextDaemon(t).Up(t.Context(), w)
		if _, runs := b.Running()["workload-web"]; runs != again || errors.Is(err, reconcile.ErrFinished) == again {
			t.Errorf("sick, %s, under the next daemon: started again: %v, %v; want %v", policy, runs, err, again)
		}
	}
}

// nextDaemon is the controller of a daemon that knows nothing of this one's.
func (b *bench) nextDaemon(t *testing.T) reconcile.Controller {
	return New(&Options{
		Sandbox: b.Sandbox, Images: b, Secrets: b, Disk: fakeDisk{b}, Volumes: t.TempDir(), Log: slog.New(slog.DiscardHandler), Now: time.Now,
	}, web, b)
}

// One that the disk holds back gives its CPUs to others.
func TestHeldByTheDiskGivesUpItsPlace(t *testing.T) {
	b := newBench(t)
	w := parse(t, ", resources: {cpu: '2', cpuPolicy: exclusive}")
	if err := b.c.Up(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	b.held = errors.New("it fills the disk")
	if err := b.c.Up(t.Context(), w); !errors.Is(err, b.held) || b.Freed() != 0 {
		t.Errorf("while it runs: %v, freed %d times", err, b.Freed())
	}
	if err := b.c.Stop(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.c.Up(t.Context(), w); !errors.Is(err, b.held) || b.Freed() != 1 || b.Placer.Release("workload-web") {
			t.Errorf("stopped: %v, freed %d times", err, b.Freed())
		}
	}
	b.held = nil
	if err := b.c.Up(t.Context(), w); err != nil {
		t.Errorf("there is room again: %v", err)
	}
}

// A sick workload that ends well when it is stopped has not finished its work.
func TestSickWorkloadStartsAgain(t *testing.T) {
	for policy, again := range map[string]bool{"always": true, "on-failure": true, "never": false} {
		b := newBench(t)
		w := parse(t, ", restart: "+policy+", health: {exec: [check], interval: 100ms, timeout: 1s, retries: 1}")
		if err := b.c.Up(t.Context(), w); err != nil {
			t.Fatal(err)
		}
		calls := 0
		b.Exec(func(container.Exec) (int, error) { calls++; return min(calls-1, 1), nil })
		b.Graceful()
		if err := b.c.Attend(t.Context(), w); err == nil || !strings.Contains(err.Error(), "its health check failed") {
			t.Errorf("%s: got %v", policy, err)
		}
		err := b.c.Up(t.Context(), w)
		if _, runs := b.Running()["workload-web"]; runs != again || errors.Is(err, reconcile.ErrFinished) == again {
			t.Errorf("%s: started again: %v, %v; want %v", policy, runs, err, again)
		}
	}
}

// What the node lacks says nothing about a workload.
func TestLocalErrorIsNoSickness(t *testing.T) {
	calls := 0
	ctx, cancel := context.WithCancel(t.Context())
	check := &healthCheck{
		log:    slog.New(slog.DiscardHandler),
		Health: object.Health{Exec: []string{"check"}, Interval: object.Duration(time.Millisecond), Timeout: object.Duration(time.Second), Retries: 1},
		exec: func(context.Context, []string) (int, error) {
			if calls++; calls == 10 {
				cancel()
			}
			return 0, &netError{unix.EMFILE}
		},
	}
	err := check.watch(ctx, func(healthy bool, problem error) { t.Errorf("told %v, %v", healthy, problem) })
	if !errors.Is(err, context.Canceled) || calls != 10 {
		t.Errorf("got %v after %d checks", err, calls)
	}
}

type netError struct{ error }

func (e *netError) Unwrap() error { return e.error }

func TestChecksOverTheNetwork(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		}
	}))
	defer s.Close()
	at := netip.MustParseAddrPort(s.Listener.Addr().String())
	check := &healthCheck{addr: at.Addr(), Health: object.Health{Timeout: object.Duration(time.Second), TCP: &object.TCPCheck{Port: int(at.Port())}}}
	if err := check.once(t.Context()); err != nil {
		t.Error(err)
	}
	check.TCP, check.HTTP = nil, &object.HTTPCheck{Port: int(at.Port()), Path: "/away"}
	if err := check.once(t.Context()); err != nil {
		t.Error(err)
	}
	s.Close()
	if err := check.once(t.Context()); err == nil || !strings.Contains(err.Error(), strconv.Itoa(int(at.Port()))) {
		t.Errorf("nobody listens: %v", err)
	}
}

// A workload has the node's models only where its manifest asks for them.
func TestInferenceIsAskedFor(t *testing.T) {
	for asked, want := range map[string]int{"": 0, ", inference: true": 1} {
		b := newBench(t)
		if err := b.c.Up(t.Context(), parse(t, asked)); err != nil {
			t.Fatal(err)
		}
		mounts := b.Running()["workload-web"].Mounts
		if len(mounts) != want || want == 1 && (mounts[0] != container.Mount{Source: "/run/oscine/inference/workloads", Target: "/run/oscine", ReadOnly: true}) {
			t.Errorf("%q: mounts %+v", asked, mounts)
		}
	}
}
