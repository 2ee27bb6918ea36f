package model

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/node/sandbox/sandboxtest"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/trial"
)

// bench is a model on a machine in memory, with a server that starts workers
// when it is told to.
type bench struct {
	*sandboxtest.Machine
	c       reconcile.Controller
	options *Options
	files   *Files

	mu      sync.Mutex
	served  *Served
	serving Serving
	chosen  pack.Question
	noPack  error
	noMount error
	packs   []pack.Info // none: one named engine
	newest  *pack.Info  // took the place of the engine; nil: none did
	stays   string      // why the model could not go there
	tries   []string    // the packs whose engines were tried
	try     func(name string) (*trial.Result, error)
	stuck   error  // what Withdraw fails of
	refuse  string // source of what does not load
	worker  *Worker
	calls   []string // of replacements
	same    []bool   // of each, whether it had to answer as before
	// replaced is called after a replacement; nil for nothing.
	replaced func(id string)
	phases   []string
	events   []string
	left     []string // of older packs, and for which
}

var digits = object.Key{Kind: object.KindModel, Name: "digits"}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{Machine: sandboxtest.New(t)}
	var err error
	if b.files, err = OpenFiles(t.TempDir(), func() error { return nil }, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	choices, err := OpenChoices(t.TempDir(), "a processor")
	if err != nil {
		t.Fatal(err)
	}
	b.options = &Options{
		Choices: choices,
		Sandbox: b.Sandbox, Server: b, Paths: Paths{SocketDir: "/run/oscine", SocketName: "worker.sock", Model: "/model", Folder: "/model.d"}, Packs: b, Device: func(name string) pack.Device { return pack.Device{Name: name, Driver: "nvidia", Version: "550.163.01"} }, Protocols: []int{2},
		Files: b.files, Sockets: t.TempDir() + "/models", Log: slog.New(slog.DiscardHandler), Life: t.Context(), Moving: make(chan struct{}, 1),
	}
	b.c = b.next(digits)
	return b
}

// next is a controller that knows nothing of an earlier one's.
func (b *bench) next(key object.Key) reconcile.Controller { return New(b.options, key, b) }

// upload stores a file and returns the Model of it.
func (b *bench) upload(t *testing.T, content string) *object.Model {
	t.Helper()
	digest, _, err := b.files.Upload(t.Context(), strings.NewReader(content), Upload{})
	if err != nil {
		t.Fatal(err)
	}
	objects, err := object.Kinds().Parse(strings.NewReader("apiVersion: oscine.dev/v1\nkind: Model\nmetadata: {name: digits}\nspec: {source: '" + digest + "', resources: {cpu: 1500m}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	return objects[0].(*object.Model)
}

func (b *bench) locked(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

func (b *bench) Serve(s Served) error {
	b.locked(func() { b.served, b.serving = &s, Serving{Phase: object.Starting, Fill: func(*object.ModelStatus) {}} })
	return nil
}

// replace starts the worker of s as the registry does.
func (b *bench) replace(ctx context.Context, how string, s Served) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if b.replaced != nil {
		defer b.replaced(s.Instances[0].ID)
	}
	if s.Ensemble != nil {
		b.locked(func() { b.calls = append(b.calls, how) })
		if len(s.Ensemble.Steps) > 1 {
			return errors.New("step 2 is not served")
		}
		b.locked(func() { b.served = &s })
		return nil
	}
	w, err := s.Instances[0].Start(ctx)
	if err != nil {
		return err
	}
	spec := b.Running()[s.Instances[0].ID]
	b.locked(func() { b.calls = append(b.calls, how+" "+s.Instances[0].ID) })
	b.locked(func() { b.same = append(b.same, s.SameAnswers) })
	if b.refuse != "" && (strings.HasSuffix(spec.Mounts[1].Source, strings.TrimPrefix(b.refuse, "sha256:")) || spec.RootFS == b.refuse) {
		_ = w.Kill()
		return errors.New("not a model")
	}
	var old *Worker
	b.locked(func() {
		old, b.worker, b.served = b.worker, w, &s
	})
	if old != nil && old.key != w.key {
		return old.Kill()
	}
	return nil
}

func (b *bench) Replace(ctx context.Context, s Served) error {
	return b.replace(ctx, "beside", s)
}

func (b *bench) ReplaceInTurn(ctx context.Context, s Served) error {
	if b.worker != nil {
		_ = b.worker.Kill()
	}
	b.locked(func() { b.worker = nil })
	return b.replace(ctx, "in turn", s)
}

func (b *bench) Route(_ string, traffic *int, shadow bool) error {
	b.locked(func() { b.calls = append(b.calls, fmt.Sprint("route ", *traffic, shadow)) })
	return nil
}

func (b *bench) Withdraw(string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stuck == nil {
		b.served = nil
	}
	return b.stuck
}

func (b *bench) Serving(string) (Serving, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.serving, b.served != nil
}

func (b *bench) WorkerArgs() []string { return []string{"--socket", "worker.sock"} }

func (b *bench) Candidates(q pack.Question) ([]pack.Info, error) {
	b.locked(func() { b.chosen = q })
	if len(b.packs) == 0 {
		return []pack.Info{{Manifest: pack.Manifest{Name: "engine"}, Digest: "sha256:engine"}}, b.noPack
	}
	return b.packs, b.noPack
}

func (b *bench) Try(_ context.Context, w *Worker, _ time.Duration) (*trial.Result, error) {
	name := strings.TrimPrefix(b.Running()["model-digits"].RootFS, "/packs/")
	b.locked(func() { b.tries = append(b.tries, name) })
	b.End("model-digits", 0, false)
	return b.try(name)
}

func (b *bench) Mount(digest string) (*pack.Info, string, error) {
	name := strings.TrimPrefix(digest, "sha256:")
	return &pack.Info{Manifest: pack.Manifest{Name: name, Version: name, Entrypoint: []string{"/engine"}}, Digest: digest}, "/packs/" + name, b.noMount
}

func (b *bench) Successor(_, digest string) (*pack.Info, string) {
	if b.newest == nil || digest == b.newest.Digest {
		return nil, ""
	}
	return b.newest, b.stays
}

func (b *bench) Stay(_, _, why string) error { b.stays = why; return nil }

func (b *bench) Moved(user, digest string) error {
	b.locked(func() { b.left = append(b.left, user+" "+digest) })
	return nil
}

func (b *bench) Phase(phase object.Phase, message string) {
	b.locked(func() { b.phases = append(b.phases, strings.TrimSpace(string(phase)+" "+message)) })
}

func (b *bench) Changed() {}

func (b *bench) Event(reason, message string) {
	b.locked(func() { b.events = append(b.events, reason+": "+message) })
}

// becomes has the server report another phase.
func (b *bench) becomes(phase object.Phase, message string) {
	var changed func()
	b.locked(func() {
		b.serving = Serving{Phase: phase, Message: message, Restarts: 1, Fill: func(st *object.ModelStatus) { st.Engine, st.Requests = "onnxruntime 1.31", 7 }}
		changed = b.served.Changed
	})
	changed()
}

func (b *bench) status() *object.ModelStatus {
	return b.c.Status(object.Observed{Phase: object.Waiting}).(*object.ModelStatus)
}

func TestLifeOfAModel(t *testing.T) {
	b := newBench(t)
	m := b.upload(t, "weights")
	if err := b.c.Up(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if string(b.chosen.Head) != "weights" || !slices.Equal(b.chosen.Protocols, []int{2}) {
		t.Errorf("a pack was asked for by %+v", b.chosen)
	}
	w, err := b.served.Instances[0].Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	spec := b.Running()["model-digits"]
	if !slices.Equal(spec.Entrypoint, []string{"/engine", "--socket", "worker.sock"}) || spec.RootFS != "/packs/engine" || len(spec.Mounts) != 2 {
		t.Errorf("container %+v", spec)
	}
	if w.Threads() != 2 || !strings.HasSuffix(w.Socket(), "/worker.sock") || w.Options() != nil || w.Owns(os.Getpid()) {
		t.Errorf("worker with %d threads at %s", w.Threads(), w.Socket())
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.c.Attend(ctx, m) }()
	b.becomes(object.Running, "")
	if st := b.status(); st.Phase != object.Running || st.Requests != 7 || st.Restarts != 1 || st.Pack != "sha256:engine" || st.PID == 0 || st.Placement == nil {
		t.Errorf("status %+v", st)
	}
	for _, phase := range []object.Phase{object.Running, object.Failed} {
		for b.last() != phase {
			time.Sleep(time.Millisecond)
		}
		if phase == object.Running {
			b.becomes(object.Failed, "no such operator")
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("attended until %v", err)
	}
	if got := strings.Join(b.events, "\n"); got != "Started: serves with onnxruntime 1.31\nFailed: no such operator" {
		t.Errorf("events:\n%s", got)
	}
	b.End("model-digits", 9, false)
	if err := w.Wait(); err == nil || !strings.Contains(err.Error(), "exit code 9") {
		t.Errorf("the worker ended: %v", err)
	}
	if err := w.Kill(); err != nil {
		t.Errorf("killed when it has ended: %v", err)
	}
	if err := errors.Join(b.c.Stop(t.Context(), m), b.c.Halt(t.Context(), m), b.c.Remove(t.Context(), nil)); err != nil || len(b.Left()) != 0 {
		t.Errorf("removed: %v, left %v", err, b.Left())
	}
	if err := w.Kill(); err != nil {
		t.Errorf("killed when it is gone: %v", err)
	}
	if err := b.c.Attend(t.Context(), m); err == nil {
		t.Error("attended what is not served")
	}
}

// last is the last phase that was reported.
func (b *bench) last() object.Phase {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.phases) == 0 {
		return ""
	}
	phase, _, _ := strings.Cut(b.phases[len(b.phases)-1], " ")
	return object.Phase(phase)
}

func TestModelOfSeveralFiles(t *testing.T) {
	b := newBench(t)
	m := b.upload(t, "to be a folder")
	dir := b.files.Path(m.Spec.Source)
	if err := errors.Join(os.Remove(dir), os.MkdirAll(dir+"/variables", 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := b.c.Up(t.Context(), m); err == nil || !strings.Contains(err.Error(), "no file at its top") {
		t.Errorf("folders alone: %v", err)
	}
	if err := os.WriteFile(dir+"/saved_model.pb", []byte("graph"), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := b.c.Up(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if files := b.chosen.Files; len(files) != 1 || files[0].Name != "saved_model.pb" || string(files[0].Head) != "graph" {
		t.Errorf("a pack was asked for by %+v", b.chosen)
	}
	if _, err := b.served.Instances[0].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if mount := b.Running()["model-digits"].Mounts[1]; mount.Source != dir || mount.Target != "/model.d" || !mount.ReadOnly {
		t.Errorf("mounted %+v", mount)
	}
}

func TestWorkersEnd(t *testing.T) {
	b := newBench(t)
	m := b.upload(t, "weights")
	if err := b.c.Up(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	for code, want := range map[int]string{0: "", 137: "memory limit"} {
		w, err := b.served.Instances[0].Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b.End("model-digits", code, code == 137)
		if err := w.Wait(); (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("exit code %d: %v", code, err)
		}
	}
	b.Fail("Start", errors.New("no space left"))
	if _, err := b.served.Instances[0].Start(t.Context()); err == nil {
		t.Error("started what cannot be")
	}
}

func TestModelThatCannotRun(t *testing.T) {
	b := newBench(t)
	m := b.upload(t, "weights")
	b.noPack = pack.ErrNotInstalled
	if err := b.c.Up(t.Context(), m); !errors.Is(err, pack.ErrNotInstalled) {
		t.Errorf("without a pack: %v", err)
	}
	b.stuck = errors.New("its worker cannot be killed")
	for name, err := range map[string]error{"up": b.c.Up(t.Context(), m), "stop": b.c.Stop(t.Context(), m), "remove": b.c.Remove(t.Context(), m)} {
		if !errors.Is(err, b.stuck) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	b.stuck, b.noPack = nil, nil
	if err := os.Remove(b.files.Path(m.Spec.Source)); err != nil {
		t.Fatal(err)
	}
	if err := b.c.Up(t.Context(), m); err == nil || !strings.Contains(err.Error(), "open the model's file") {
		t.Errorf("without its file: %v", err)
	}
}
