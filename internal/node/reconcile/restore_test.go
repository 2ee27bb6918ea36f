package reconcile

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"oscine.dev/oscine/internal/object"
)

// bootFatally starts a daemon and reports whether it died while it read what is
// stored. Nothing of a dead daemon goes on.
func (w *world) bootFatally(t *testing.T) (l *Loop, died bool) {
	t.Helper()
	l = w.open(t)
	defer func() {
		if r := recover(); r != nil {
			died = true
			l.end()
		}
	}()
	if err := l.Load(); err != nil {
		t.Fatal(err)
	}
	// As Start, but on this goroutine, so that a death can be seen.
	for _, key := range l.Keys() {
		l.mu.Lock()
		e := l.entries[key]
		suspect := e.machine.aside == errSuspect
		l.mu.Unlock()
		if suspect {
			l.startAlone(e)
		}
	}
	l.Start()
	return l, false
}

// An object that takes the daemon down is set aside after the second time, and
// the others run.
func TestObjectThatEndsTheDaemonIsSetAside(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		l := w.boot(t)
		apply(t, l, newThing("a", "1", ""), newThing("bb", "1", ""), newThing("ccc", "1", ""))
		synctest.Wait()
		l.Close()
		w.records[keyOf("bb")].Manifest, _ = json.Marshal(newThing("bb", "bomb", ""))
		deaths := 0
		for {
			next, died := w.bootFatally(t)
			if !died {
				l = next
				break
			}
			if deaths++; deaths > maxStarts {
				t.Fatalf("the daemon died %d times of one object", deaths)
			}
		}
		defer l.Close()
		if deaths != maxStarts {
			t.Errorf("the daemon died %d times, want %d", deaths, maxStarts)
		}
		synctest.Wait()
		for _, name := range []string{"a", "ccc"} {
			if o := observed(t, l, name); o.Phase != object.Running {
				t.Errorf("%s is %+v", name, o)
			}
		}
		if o := observed(t, l, "bb"); o.Phase != object.Failed || !strings.Contains(o.Message, "set aside") {
			t.Errorf("bb is %+v, want it set aside", o)
		}
		if got := strings.Join(w.noted(), "\n"); !strings.Contains(got, "bb Failed: set aside") {
			t.Errorf("events:\n%s", got)
		}
		if err := l.Delete(t.Context(), keyOf("bb")); err != nil || w.records[keyOf("bb")] != nil {
			t.Errorf("it cannot be deleted: %v", err)
		}
	})
}

// What was set aside runs again once it is applied.
func TestSetAsideIsAppliedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.records[keyOf("a")] = &Record{Key: keyOf("a"), Manifest: json.RawMessage(`{"spec":{"text":"1"}}`), Starts: maxStarts}
		w.records[keyOf("bb")] = &Record{Key: keyOf("bb"), Manifest: json.RawMessage(`{"spec":`)}
		l := w.boot(t)
		defer l.Close()
		time.Sleep(time.Hour)
		for _, name := range []string{"a", "bb"} {
			if o := observed(t, l, name); o.Phase != object.Failed {
				t.Errorf("%s is %+v", name, o)
			}
		}
		if s := l.Get("Thing", "bb")[0]; s.Object != nil || len(l.Objects()) != 0 {
			t.Errorf("what cannot be read is shown as %+v", s)
		}
		apply(t, l, newThing("a", "2", ""), newThing("bb", "2", ""))
		time.Sleep(time.Minute)
		if got := w.runs(); got["a"] != "2" || got["bb"] != "2" {
			t.Errorf("applied again: %v run", got)
		}
		if w.starts("a") != 0 {
			t.Error("it runs, and counts as being started")
		}
	})
}

// A suspect is started alone, counts while it is, and not afterwards.
func TestSuspectIsStartedAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for _, name := range []string{"a", "bb"} {
			manifest, _ := json.Marshal(newThing(name, "1", ""))
			w.records[keyOf(name)] = &Record{Key: keyOf(name), Manifest: manifest, Starts: 1}
		}
		w.slow = 5 * time.Second
		l := w.boot(t)
		defer l.Close()
		time.Sleep(time.Second)
		if a, b := w.starts("a"), w.starts("bb"); a+b != 3 {
			t.Errorf("counts %d and %d, want one of them tried now", a, b)
		}
		time.Sleep(time.Minute)
		if got := w.runs(); len(got) != 2 || w.starts("a") != 0 || w.starts("bb") != 0 || !w.placed["a"] {
			t.Errorf("%v run, counts %d and %d", got, w.starts("a"), w.starts("bb"))
		}
	})
}

func TestLoadFails(t *testing.T) {
	w := newWorld()
	w.records[keyOf("a")] = &Record{Key: keyOf("a"), Problem: errors.New("torn")}
	w.broken = true
	l := w.open(t)
	defer l.Close()
	if err := l.Load(); !errors.Is(err, errDisk) {
		t.Errorf("got %v, want the disk's error", err)
	}
	if _, err := l.Apply(t.Context(), []object.Object{newThing("a", "", "")}, false, anything, nothing); !errors.Is(err, errDisk) {
		t.Errorf("got %v", err)
	}
}
