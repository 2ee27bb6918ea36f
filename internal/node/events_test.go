package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/hardware/hardwaretest"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/object"
)

func eventsAt(t *testing.T, path string) *eventLog {
	t.Helper()
	l, err := openEvents(t.Context(), path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.close() })
	return l
}

// said lists events as OBJECT REASON COUNT.
func said(n *Node, q EventQuery) []string {
	var lines []string
	_ = n.Events(context.Background(), q, func(e Event) error {
		about := e.Device
		if e.Kind != "" {
			about = object.Key{Kind: e.Kind, Name: e.Name}.String()
		}
		lines = append(lines, fmt.Sprintf("%s %s %d", about, e.Reason, e.Count))
		return nil
	})
	return lines
}

func TestEventsAreCountedAndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.log")
	n := &Node{config: Config{Kinds: object.Kinds()}, events: eventsAt(t, path)}
	web := object.Key{Kind: object.KindWorkload, Name: "web"}
	n.note(web, reasonFailed, "ended with exit code 1\nand more")
	n.notePromise(isolate.Event{ID: "model-digits", Reason: isolate.ReasonBroken, Message: "cpuset"})
	n.notePromise(isolate.Event{Reason: isolate.ReasonResumed, Message: "batch goes on"})
	n.note(web, reasonFailed, "ended with exit code 1\nand more")
	want := []string{"Model/digits PromiseBroken 1", " BatchResumed 1", "Workload/web Failed 2"}
	if got := said(n, EventQuery{}); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, c := range []struct {
		query EventQuery
		want  string
	}{
		{EventQuery{Kind: object.KindWorkload, Name: "web"}, "[Workload/web Failed 2]"},
		{EventQuery{Warnings: true}, "[Model/digits PromiseBroken 1 Workload/web Failed 2]"},
		{EventQuery{Tail: 1}, "[Workload/web Failed 2]"},
		{EventQuery{Device: "gpu0"}, "[]"},
	} {
		if got := fmt.Sprint(said(n, c.query)); got != c.want {
			t.Errorf("%+v: got %s, want %s", c.query, got, c.want)
		}
	}
	if err := n.Events(t.Context(), EventQuery{Kind: "Pod"}, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("a kind that is not there: got %v, want ErrInvalid", err)
	}

	// The next daemon reads them back, past what a power failure left.
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString("2026-01-01T00:00:00Z stdout F {\"reason\":\nhalf a rec"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(file.Close(), n.events.close()); err != nil {
		t.Fatal(err)
	}
	next := &Node{config: Config{Kinds: object.Kinds()}, events: eventsAt(t, path)}
	if got := said(next, EventQuery{}); !slices.Equal(got, want) {
		t.Errorf("after a restart got %q, want %q", got, want)
	}
	next.note(web, reasonFailed, "ended with exit code 1\nand more")
	if got := said(next, EventQuery{Tail: 1}); got[0] != "Workload/web Failed 3" {
		t.Errorf("counted on after a restart: got %q", got)
	}
}

func TestEventsAreBounded(t *testing.T) {
	n := &Node{config: Config{Kinds: object.Kinds()}, events: eventsAt(t, filepath.Join(t.TempDir(), "events.log"))}
	for i := range maxEvents + 10 {
		n.note(object.Key{Kind: object.KindWorkload, Name: fmt.Sprint("w", i%50)}, reasonFailed, fmt.Sprint(i))
	}
	n.note(object.Key{Kind: object.KindWorkload, Name: "web"}, reasonFailed, strings.Repeat("é", 3*maxEventMessage))
	list, _ := n.events.after(time.Time{})
	if len(list) != maxEvents || list[0].Message != "11" {
		t.Errorf("%d are kept from %q on, want %d from 11 on", len(list), list[0].Message, maxEvents)
	}
	for i := range 2 * maxAlike {
		n.note(object.Key{Kind: object.KindWorkload, Name: "noisy"}, reasonFailed, fmt.Sprint(i))
	}
	if noisy := said(n, EventQuery{Name: "noisy"}); len(noisy) != maxAlike {
		t.Errorf("%d of one reason and object are kept, want %d", len(noisy), maxAlike)
	}
	if last := list[len(list)-1].Message; len(last) > maxEventMessage || !strings.HasSuffix(last, "é…") {
		t.Errorf("a long message has %d bytes and ends in %q", len(last), last[len(last)-8:])
	}
}

func TestEventsAreFollowed(t *testing.T) {
	n := &Node{config: Config{Kinds: object.Kinds()}, events: eventsAt(t, filepath.Join(t.TempDir(), "events.log"))}
	n.note(object.Key{Kind: object.KindWorkload, Name: "old"}, reasonStarted, "")
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan Event)
	ended := make(chan error, 1)
	go func() {
		ended <- n.Events(ctx, EventQuery{Follow: true, Tail: 1}, func(e Event) error {
			seen <- e
			return nil
		})
	}()
	for _, name := range []string{"old", "new", "newer"} {
		if got := <-seen; got.Name != name {
			t.Errorf("got the event of %q, want of %q", got.Name, name)
		}
		if name == "old" {
			n.note(object.Key{Kind: object.KindWorkload, Name: "new"}, reasonStarted, "")
		} else {
			n.note(object.Key{Kind: object.KindWorkload, Name: "newer"}, reasonStarted, "")
		}
	}
	cancel()
	for {
		select {
		case <-seen:
			continue
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("followed until %v, want until the context ended", err)
			}
			return
		}
	}
}

// A GPU that falls off the bus is told of, for the device and for who holds it.
func TestLostDeviceIsTold(t *testing.T) {
	dir := t.TempDir()
	if err := hardwaretest.Server8GPU().Write(dir); err != nil {
		t.Fatal(err)
	}
	before, err := hardware.Discover(dir)
	if err != nil {
		t.Fatal(err)
	}
	placer, err := allocate.NewPlacer(before, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s, err := openStore(filepath.Join(t.TempDir(), "state.db"), object.Kinds())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	obj := parse(t, "apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: a}\nspec: {image: x, resources: {cpu: '1', devices: [{name: gpu, selector: 'device.attributes[\"oscine.dev\"].kind == \"gpu\"', count: 1}]}}\n")
	if err := s.put([]object.Object{obj}); err != nil {
		t.Fatal(err)
	}
	n := &Node{config: Config{Kinds: object.Kinds()}, placer: placer, live: hardware.NewLive(sysRoot, nil), events: eventsAt(t, filepath.Join(t.TempDir(), "events.log"))}
	first, _, err := placer.Place(t.Context(), s, obj)
	if err != nil {
		t.Fatal(err)
	}
	held := first.Placement.Devices[0].ID

	// As the watcher does: the device is marked, its name stays.
	after, err := before.Clone()
	if err != nil {
		t.Fatal(err)
	}
	for i := range after.Accelerators {
		if after.Accelerators[i].ID == held {
			after.Accelerators[i].Health = hardware.Health{State: "lost", Reasons: []string{"the device is gone from the bus"}}
		}
	}
	n.sawHardware(after, hardware.Differences(before, after))
	want := []string{held + " DeviceLost 1", "Workload/a DeviceLost 1"}
	if got := said(n, EventQuery{}); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

func TestWatchHardwareRefuses(t *testing.T) {
	n := &Node{live: hardware.NewLive(sysRoot, nil)}
	if err := n.WatchHardware(t.Context(), time.Millisecond, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("a load every millisecond: got %v, want ErrInvalid", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	var watchers sync.WaitGroup
	refused := make(chan error, 100)
	for range cap(refused) {
		watchers.Go(func() {
			if err := n.WatchHardware(gone, 0, nil); !errors.Is(err, context.Canceled) {
				refused <- err
			}
		})
	}
	if err := <-refused; !errors.Is(err, ErrConflict) {
		t.Errorf("100 watchers: got %v, want ErrConflict", err)
	}
	cancel()
	watchers.Wait()
	if err := n.WatchHardware(gone, 0, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a watcher that left: got %v", err)
	}
}
