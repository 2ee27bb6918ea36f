package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/object"
)

func eventsAt(t *testing.T, path string) *Events {
	t.Helper()
	l := OpenEvents(t.Context(), path, time.Now, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// said lists events as OBJECT REASON COUNT.
func said(l *Events, q Query) []string {
	var lines []string
	_ = l.Each(context.Background(), q, func(e Event) error {
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
	l := eventsAt(t, path)
	web := keyOf("web")
	failed := ObjectEvent(web, ReasonFailed, "ended with exit code 1\nand more")
	l.Add(failed)
	l.Add(ObjectEvent(keyOf("ok"), ReasonStarted, ""))
	l.Add(Event{Device: "gpu0", Reason: "DeviceAdded"})
	l.Add(failed)
	want := []string{"Thing/ok Started 1", "gpu0 DeviceAdded 1", "Thing/web Failed 2"}
	if got := said(l, Query{}); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, c := range []struct {
		query Query
		want  string
	}{
		{Query{Kind: "Thing", Name: "web"}, "[Thing/web Failed 2]"},
		{Query{Warnings: true}, "[Thing/web Failed 2]"},
		{Query{Tail: 1}, "[Thing/web Failed 2]"},
		{Query{Device: "gpu0"}, "[gpu0 DeviceAdded 1]"},
		{Query{Kind: "Other"}, "[]"},
	} {
		if got := fmt.Sprint(said(l, c.query)); got != c.want {
			t.Errorf("%+v: got %s, want %s", c.query, got, c.want)
		}
	}

	// The next daemon reads them back, past what a power failure left.
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString("2026-01-01T00:00:00Z stdout F {\"reason\":\nhalf a rec"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(file.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	next := eventsAt(t, path)
	if got := said(next, Query{}); !slices.Equal(got, want) {
		t.Errorf("after a restart got %q, want %q", got, want)
	}
	next.Add(failed)
	if got := said(next, Query{Tail: 1}); got[0] != "Thing/web Failed 3" {
		t.Errorf("counted on after a restart: got %q", got)
	}
}

func TestEventsAreBounded(t *testing.T) {
	l := eventsAt(t, filepath.Join(t.TempDir(), "events.log"))
	for i := range maxEvents + 10 {
		l.Add(ObjectEvent(keyOf(fmt.Sprint("w", i%50)), ReasonFailed, fmt.Sprint(i)))
	}
	l.Add(ObjectEvent(keyOf("web"), ReasonFailed, strings.Repeat("é", 3*maxEventMessage)))
	list, _ := l.after(0)
	if len(list) != maxEvents || list[0].Message != "11" {
		t.Errorf("%d are kept from %q on, want %d from 11 on", len(list), list[0].Message, maxEvents)
	}
	for i := range 2 * maxAlike {
		l.Add(ObjectEvent(keyOf("noisy"), ReasonFailed, fmt.Sprint(i)))
	}
	if noisy := said(l, Query{Name: "noisy"}); len(noisy) != maxAlike {
		t.Errorf("%d of one reason and object are kept, want %d", len(noisy), maxAlike)
	}
	if last := list[len(list)-1].Message; len(last) > maxEventMessage || !strings.HasSuffix(last, "é…") {
		t.Errorf("a long message has %d bytes and ends in %q", len(last), last[len(last)-8:])
	}
}

// Followers miss none: not of two at one moment, and none after the clock went
// back.
func TestFollowersMissNone(t *testing.T) {
	l := eventsAt(t, filepath.Join(t.TempDir(), "events.log"))
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	l.now = func() time.Time { return now }
	l.Add(ObjectEvent(keyOf("old"), ReasonStarted, ""))
	l.Add(ObjectEvent(keyOf("last"), ReasonStarted, ""))
	ctx, cancel := context.WithCancel(t.Context())
	seen, ended := make(chan Event), make(chan error, 1)
	go func() {
		ended <- l.Each(ctx, Query{Follow: true, Tail: 1}, func(e Event) error {
			seen <- e
			return nil
		})
	}()
	next := func(want string) {
		t.Helper()
		select {
		case got := <-seen:
			if got.Name != want {
				t.Errorf("got the event of %q, want of %q", got.Name, want)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("the event of %q did not come", want)
		}
	}
	next("last")
	l.Add(ObjectEvent(keyOf("one"), ReasonStarted, ""))
	l.Add(ObjectEvent(keyOf("two"), ReasonStarted, "")) // at the same moment
	next("one")
	next("two")
	now = now.Add(-time.Hour)
	l.Add(ObjectEvent(keyOf("earlier"), ReasonStarted, ""))
	next("earlier")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("followed until %v, want until the context ended", err)
	}
}

func FuzzParseEvent(f *testing.F) {
	f.Add(`{"first":"2026-01-01T00:00:00Z","last":"2026-01-01T00:00:00Z","count":1,"reason":"Failed","message":"x"}`)
	f.Add(`{"reason":`)
	f.Fuzz(func(t *testing.T, text string) {
		if e, ok := parseEvent(text); ok && (e.Reason == "" || e.Count < 1 || len(e.Message) > maxEventMessage) {
			t.Errorf("%q was read as %+v", text, e)
		}
	})
}
