package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/share"
	"oscine.dev/oscine/internal/update/slot"
)

// world is a machine with two slots, a source of releases and a clock: what lasts
// while daemons and boots come and go.
type world struct {
	t    *testing.T
	dir  string
	stop func() // ends the daemon

	foreign bool // the machine is not ours
	noData  bool // its data partition cannot be mounted

	mu      sync.Mutex
	now     time.Time
	boot    int
	active  slot.Version
	idle    slot.Version
	loader  slot.LoaderStep
	damaged []string // files of the ESP, until it is repaired
	good    bool     // PID 1 marked the running version
	offered []*update.Manifest
	source  error  // of the source
	refused error  // by the slots
	looks   func() // called when the node looks at what runs
	cache   *share.Cache
	opened  func(update.Options)    // called when a source is opened
	fetches func()                  // called when content is fetched
	lies    func(name string) error // what fetching a pin ends with
	running []string
	packs   map[string]string                                       // digests, with the release that they wait for; "" for installed ones
	models  map[string]bool                                         // digests
	fits    func(kernel string, pins []string, staged string) error // nil: every kernel
	left    map[string]int64                                        // bytes of files that were cut, by digest
	pins    map[string]error                                        // what fetching the file of a name ends with
	fetched []string                                                // names of files
	failing map[string]error                                        // checks, by name
	drained atomic.Int32
	notes   []string
	told    []release.Notification
	reboots chan struct{}
	backs   chan string
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, dir: t.TempDir(), now: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC), good: true,
		active: slot.Version{Slot: "root-a", Version: "1.0", Health: slot.Good, Running: true}, idle: slot.Version{Slot: "root-b", Health: slot.Empty},
		packs: map[string]string{}, models: map[string]bool{}, pins: map[string]error{},
		failing: map[string]error{}, reboots: make(chan struct{}, 8), backs: make(chan string, 8),
		offered: []*update.Manifest{manifest("1.1"), manifest("0.9")}, running: []string{"Workload/web"},
	}
}

func manifest(version string) *update.Manifest {
	return &update.Manifest{
		Format: 1, Version: version, Arch: "amd64", Flavour: "cloud", Kernel: "7-cloud-amd64", Built: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
		Image: update.Content{Size: 10}, Root: update.Content{Size: 8192},
	}
}

// daemon starts the daemon of this boot.
func (w *world) daemon(machine object.MachineUpdate) *Manager {
	if w.stop != nil {
		w.stop()
	}
	machine.SetDefaults()
	c := Config{
		File: filepath.Join(w.dir, "upgrade.json"), Dir: filepath.Join(w.dir, "upgrade"), BootLog: filepath.Join(w.dir, release.BootLogFile),
		BootID: fmt.Sprint(w.boot), Arch: "amd64", Kernel: "7-cloud-amd64", Machine: machine, Slots: (*fakeSlots)(w), Stores: (*fakeStores)(w), Facts: w.facts,
		Open: func(_ string, o update.Options) (update.Source, error) {
			if w.opened != nil {
				w.opened(o)
			}
			return (*fakeSource)(w), nil
		},
		Cache: w.cache, Tell: w.tell, Host: (*fakeHost)(w), Now: w.clock, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if w.foreign || w.noData {
		c.Slots = nil
	}
	if w.foreign {
		c.Facts = nil
	}
	m := Open(c)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); m.Run(ctx) }()
	w.stop = func() { cancel(); <-ended }
	w.t.Cleanup(w.stop)
	return m
}

func (w *world) clock() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now }

func (w *world) facts() release.Facts {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := "EFI/Linux/oscine_" + w.active.Version + ".efi"
	if w.active.Health == slot.Trial {
		name = "EFI/Linux/oscine_" + w.active.Version + "+2-1.efi"
	}
	return release.Facts{Slot: w.active.Slot, Disk: "vda", Data: "vda4", Image: name, Trial: w.active.Health == slot.Trial && !w.good, Good: w.good}
}

// tell is PID 1.
func (w *world) tell(n release.Notification) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, n)
	switch {
	case n.Request == release.RequestReboot:
		w.reboots <- struct{}{}
	case n.Trial == release.TrialGood:
		w.good, w.active.Health = true, slot.Good
	case n.Trial == release.TrialFailed:
		w.backs <- n.Status
	}
	return nil
}

// restart is a boot: of the armed version, unless it does not work.
func (w *world) restart(works bool) {
	w.stop()
	w.stop = nil
	w.mu.Lock()
	defer w.mu.Unlock()
	w.boot++
	if w.idle.Health != slot.Trial {
		return
	}
	if !works {
		w.idle.Health = slot.Bad
		return
	}
	w.active, w.idle = w.idle, w.active
	w.active.Running, w.idle.Running, w.good = true, false, false
}

// back is a boot of the version before, after PID 1 gave the running one up.
func (w *world) back() {
	w.stop()
	w.stop = nil
	w.mu.Lock()
	defer w.mu.Unlock()
	w.boot++
	w.active.Health, w.active.Running = slot.Bad, false
	w.active, w.idle = w.idle, w.active
	w.active.Running, w.good = true, true
}

func (w *world) await(what string, done func() bool) {
	w.t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("waiting for %s", what)
		}
	}
}

func (w *world) awaitStage(m *Manager, stage Stage) *Upgrade {
	w.t.Helper()
	var got *Upgrade
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		st := m.Status()
		if got = st.Current; got == nil {
			got = st.Last
		}
		if got != nil && got.Stage == stage {
			return got
		}
		if time.Now().After(end) {
			w.t.Fatalf("waiting for %s: it is %+v, slots %+v", stage, got, st.Slots)
		}
	}
}

// slots are what the disk holds.
func (w *world) slots() (active, idle slot.Version) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.active, w.idle
}

func (w *world) awaitReboot() {
	w.t.Helper()
	select {
	case <-w.reboots:
	case <-time.After(10 * time.Second):
		w.t.Fatal("no restart was asked for")
	}
}

func (w *world) awaitBack() string {
	w.t.Helper()
	select {
	case why := <-w.backs:
		return why
	case <-time.After(10 * time.Second):
		w.t.Fatal("PID 1 was not told to go back")
		return ""
	}
}

type fakeSlots world

func (s *fakeSlots) State() (slot.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slot.State{Active: s.active, Idle: s.idle}, nil
}
func (s *fakeSlots) Check(m *update.Manifest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active.Version == m.Version {
		return slot.ErrRunning
	}
	return s.refused
}
func (s *fakeSlots) CheckImage(*update.Manifest, []byte) (release.Verity, error) {
	return release.Verity{}, nil
}
func (s *fakeSlots) Clear() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle.Version, s.idle.Health = "", slot.Empty
	return nil
}
func (s *fakeSlots) Idle() (slot.Partition, error) {
	return nothing{}, nil
}
func (s *fakeSlots) Running() (*update.Base, io.Closer, error)       { return nil, nothing{}, nil }
func (s *fakeSlots) RunningImage() ([]byte, error)                   { return []byte("kernel"), nil }
func (s *fakeSlots) CheckRoot(context.Context, release.Verity) error { return nil }
func (s *fakeSlots) Stage(version string, _ []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle.Version, s.idle.Health = version, slot.Staged
	return nil
}
func (s *fakeSlots) Arm(version string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle.Version != version || s.idle.Health != slot.Staged && s.idle.Health != slot.Trial {
		return errors.New("not staged")
	}
	s.idle.Health, s.idle.Left = slot.Trial, release.Tries
	return nil
}
func (s *fakeSlots) Disarm() error {
	s.mu.Lock()
	good := s.idle.Health == slot.Good
	s.mu.Unlock()
	if good {
		return nil
	}
	return s.Clear()
}

func (s *fakeSlots) Repair(context.Context, slot.Copies) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused != nil {
		return nil, s.refused
	}
	return s.damaged, nil
}

func (s *fakeSlots) ReplaceLoader(slot.Firmware, map[string][]byte) (slot.LoaderStep, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loader, nil
}

// nothing is a partition that takes everything.
type nothing struct{}

func (nothing) ReadAt(p []byte, _ int64) (int, error)  { return len(p), nil }
func (nothing) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nothing) Close() error                           { return nil }
func (nothing) Size() int64                            { return 1 << 20 }
func (nothing) Flush() error                           { return nil }

type fakeSource world

func (s *fakeSource) Releases(context.Context, string, string) ([]*update.Manifest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.offered, s.source
}
func (s *fakeSource) Choose(_ context.Context, c *update.Content, base *update.Base) (update.Transfer, string) {
	return c.Best(base), ""
}
func (s *fakeSource) Fetch(ctx context.Context, c *update.Content, _ *update.Base, _ update.Slot, report func(update.Progress)) error {
	if s.fetches != nil {
		s.fetches()
	}
	report(update.Progress{Done: c.Size, Size: c.Size})
	return ctx.Err()
}
func (s *fakeSource) FetchPin(_ context.Context, p update.Pin, _ io.Reader, _ io.Writer, report func(update.Progress)) error {
	if report != nil {
		report(update.Progress{Path: p.Path, Done: p.Size, Size: p.Size})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lies != nil {
		if err := s.lies(p.Name); err != nil {
			return err
		}
	}
	s.fetched = append(s.fetched, p.Name)
	return s.pins[p.Name]
}
func (s *fakeSource) Close() error { return nil }

// fakeStores hold digests.
type fakeStores world

func (s *fakeStores) HasPack(digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.packs[digest]
	return ok
}
func (s *fakeStores) HasModel(digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.models[digest]
}
func (s *fakeStores) Left(digest string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left[digest]
}
func (s *fakeStores) OpenPack(digest string) (*os.File, error) {
	if !s.HasPack(digest) {
		return nil, fs.ErrNotExist
	}
	return os.Open(os.DevNull)
}
func (s *fakeStores) OpenModel(digest string) (*os.File, error) {
	if !s.HasModel(digest) {
		return nil, fs.ErrNotExist
	}
	return os.Open(os.DevNull)
}
func (s *fakeStores) AddPack(_ context.Context, release, digest string, fetch func(io.Reader, io.Writer) error) error {
	if s.HasPack(digest) {
		return nil
	}
	if err := fetch(nil, io.Discard); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packs[digest] = release
	return nil
}
func (s *fakeStores) AddModel(_, digest string, fetch func(io.Reader, io.Writer) error) error {
	if s.HasModel(digest) {
		return nil
	}
	if err := fetch(nil, io.Discard); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.models[digest] = true
	return nil
}
func (s *fakeStores) Settle() (packs []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for digest, release := range s.packs {
		if release != "" && release != s.active.Version {
			delete(s.packs, digest)
			continue
		}
		s.packs[digest] = ""
		packs = append(packs, digest)
	}
	return packs, nil
}

type fakeHost world

func (h *fakeHost) Before() Before {
	h.mu.Lock()
	looks, running := h.looks, h.running
	h.mu.Unlock()
	if looks != nil {
		looks()
	}
	return Before{Objects: running, Network: true}
}
func (h *fakeHost) Checks(b *Before) (checks []Check) {
	names := []string{"network"}
	if b != nil {
		names = append(names, b.Objects...)
	}
	for _, name := range names {
		checks = append(checks, Check{name, func(context.Context) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.failing[name]
		}})
	}
	return checks
}
func (h *fakeHost) Drain(context.Context) { h.drained.Add(1) }
func (h *fakeHost) Note(reason, _ string, _ bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.notes = append(h.notes, reason)
}

// FitKernel refuses what the test says.
func (s *fakeStores) FitKernel(kernel string, pins []string, staged string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fits == nil {
		return nil
	}
	return s.fits(kernel, pins, staged)
}
