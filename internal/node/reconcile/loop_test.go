package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"oscine.dev/oscine/internal/object"
)

// apply applies things to a loop.
func apply(t *testing.T, l *Loop, objects ...object.Object) []Result {
	t.Helper()
	results, err := l.Apply(t.Context(), objects, false, anything, nothing)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// observed is what is shown of a thing.
func observed(t *testing.T, l *Loop, name string) object.Observed {
	t.Helper()
	states := l.Get("Thing", name)
	if len(states) != 1 {
		t.Fatalf("%d objects are called %s", len(states), name)
	}
	return *states[0].Status.Common()
}

func inBubble(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newWorld()) })
}

// A deletion that fails is tried again by itself and by another Delete, and does
// not keep the object from being applied.
func TestFailedDeleteCanBeRepeated(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		l := w.boot(t)
		defer l.Close()
		apply(t, l, newThing("web", "1", ""), newThing("other", "1", ""))
		synctest.Wait()
		w.fail("web", errors.New("netlink: try again"))
		for range 2 {
			if err := l.Delete(t.Context(), keyOf("web")); err == nil || !strings.Contains(err.Error(), "netlink") || errors.Is(err, ErrConflict) {
				t.Errorf("got %v, want why it failed", err)
			}
		}
		if o := observed(t, l, "web"); o.Phase != object.Failed || !strings.Contains(o.Message, "netlink") {
			t.Errorf("shown as %+v", o)
		}
		w.fail("web", nil)
		if err := l.Delete(t.Context(), keyOf("web")); err != nil {
			t.Errorf("it works again: %v", err)
		}
		if err := l.Delete(t.Context(), keyOf("web")); !errors.Is(err, ErrNotFound) {
			t.Errorf("deleted: got %v, want ErrNotFound", err)
		}

		// By itself.
		w.fail("other", errors.New("busy"))
		if err := l.Delete(t.Context(), keyOf("other")); err == nil {
			t.Error("deleted what cannot be")
		}
		w.fail("other", nil)
		time.Sleep(time.Minute)
		if len(l.Keys()) != 0 || len(w.runs()) != 0 || len(w.records) != 0 {
			t.Errorf("left: %v, running %v", l.Keys(), w.runs())
		}

		// Applied again instead.
		apply(t, l, newThing("web", "1", ""))
		synctest.Wait()
		w.fail("web", errors.New("busy"))
		if err := l.Delete(t.Context(), keyOf("web")); err == nil {
			t.Error("deleted what cannot be")
		}
		w.fail("web", nil)
		if r := apply(t, l, newThing("web", "2", "")); r[0].Action != Updated {
			t.Errorf("applied after a failed deletion: %s", r[0].Action)
		}
		time.Sleep(time.Minute)
		if got := w.runs()["web"]; got != "2" {
			t.Errorf("runs %q, want 2", got)
		}
	})
}

// A loop that is closed begins nothing more.
func TestClosedLoopTakesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		l := w.boot(t)
		apply(t, l, newThing("web", "1", ""))
		synctest.Wait()
		l.Close()
		if _, err := l.Apply(t.Context(), []object.Object{newThing("new", "1", "")}, false, anything, nothing); !errors.Is(err, ErrConflict) {
			t.Errorf("apply: got %v, want ErrConflict", err)
		}
		if err := l.Delete(t.Context(), keyOf("web")); !errors.Is(err, ErrConflict) {
			t.Errorf("delete: got %v, want ErrConflict", err)
		}
		synctest.Wait()
		if got := w.runs(); len(got) != 1 || got["web"] != "1" || len(w.records) != 1 {
			t.Errorf("runs %v, %d records", got, len(w.records))
		}
	})
}

// A deletion that a daemon began is ended by the next one.
func TestNextDaemonEndsADeletion(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		l := w.boot(t)
		apply(t, l, newThing("web", "1", ""))
		synctest.Wait()
		w.slow = time.Minute
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() { gone <- l.Delete(ctx, keyOf("web")) }()
		time.Sleep(time.Second)
		if _, err := l.Apply(t.Context(), []object.Object{newThing("web", "2", "")}, false, anything, nothing); !errors.Is(err, ErrInvalid) {
			t.Errorf("applied while it is being deleted: %v, want ErrInvalid", err)
		}
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("the client left: %v", err)
		}
		l.Close()
		w.slow = 0
		l = w.boot(t)
		defer l.Close()
		synctest.Wait()
		if len(w.runs()) != 0 || len(w.records) != 0 || len(l.Keys()) != 0 {
			t.Errorf("left: running %v, stored %d, listed %v", w.runs(), len(w.records), l.Keys())
		}
	})
}

// Only runs that ended badly count as restarts, with a longer pause each time.
func TestRestartsAndPauses(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		l := w.boot(t)
		defer l.Close()
		w.fail("web", Refused(errors.New("no room")))
		apply(t, l, newThing("web", "1", ""))
		time.Sleep(10 * time.Minute)
		if o := observed(t, l, "web"); o.Phase != object.Unplaced || o.Restarts != 0 || o.Message != "no room" {
			t.Errorf("without room: %+v", o)
		}
		w.fail("web", nil)
		l.Wake(func(o object.Object) bool { return o.Key().Name == "web" })
		synctest.Wait()
		if o := observed(t, l, "web"); o.Phase != object.Running || o.Restarts != 0 {
			t.Errorf("with room: %+v", o)
		}
		for n := range 3 {
			w.crash("web")
			synctest.Wait()
			if o := observed(t, l, "web"); o.Phase != object.Waiting || o.Message != "it crashed" {
				t.Errorf("crashed: %+v", o)
			}
			time.Sleep(10 * time.Second)
			if o := observed(t, l, "web"); o.Phase != object.Running || o.Restarts != n+1 {
				t.Errorf("after crash %d: %+v", n+1, o)
			}
		}
		apply(t, l, newThing("web", "2", ""))
		synctest.Wait()
		if o := observed(t, l, "web"); o.Restarts != 3 {
			t.Errorf("another manifest counts as a restart: %+v", o)
		}
		time.Sleep(time.Hour)
		w.crash("web")
		synctest.Wait()
		time.Sleep(productLimits().first + time.Millisecond)
		if o := observed(t, l, "web"); o.Phase != object.Running {
			t.Errorf("a crash after a long run: %+v, want it to be tried after the first pause", o)
		}
	})
}

// What has finished is left alone until it is asked for otherwise.
func TestFinishedStaysSo(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		l := w.boot(t)
		defer l.Close()
		apply(t, l, newThing("job", "1", "once"))
		synctest.Wait()
		w.crash("job")
		synctest.Wait()
		l.Displace(map[string]error{keyOf("job").ID(): errors.New("its CPU is gone")})
		time.Sleep(time.Hour)
		if o := observed(t, l, "job"); o.Phase != object.Exited || w.ups["job"] != 1 {
			t.Errorf("finished: %+v after %d starts", o, w.ups["job"])
		}
		apply(t, l, newThing("job", "2", "once"))
		synctest.Wait()
		if got := w.runs()["job"]; got != "2" {
			t.Errorf("applied again: runs %q", got)
		}
	})
}

// A displaced object says what became of its place until it has another.
func TestDisplacementIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		l := w.boot(t)
		defer l.Close()
		apply(t, l, newThing("web", "1", ""))
		synctest.Wait()
		l.Displace(nil)
		l.Displace(map[string]error{"thing-web": errors.New("GPU 3 is lost")})
		synctest.Wait()
		if o := observed(t, l, "web"); o.Phase != object.Running || w.ups["web"] != 2 {
			t.Errorf("displaced: %+v after %d starts, want it to run again", o, w.ups["web"])
		}
		w.fail("web", nil)
		w.slow = time.Second
		l.Displace(map[string]error{"thing-web": errors.New("GPU 4 is lost")})
		time.Sleep(500 * time.Millisecond) // it is being stopped
		w.fail("web", Refused(errors.New("no GPU is free")))
		time.Sleep(time.Minute)
		if o := observed(t, l, "web"); o.Phase != object.Unplaced || !strings.Contains(o.Message, "GPU 4 is lost") || !strings.Contains(o.Message, "no GPU is free") {
			t.Errorf("status %+v, want what was lost and what is missing", o)
		}
		if got := strings.Join(w.noted(), "\n"); !strings.Contains(got, "web Displaced: GPU 3 is lost") || !strings.Contains(got, "web Unplaced: ") {
			t.Errorf("events:\n%s", got)
		}
	})
}

// A change interrupts what is under way: a wrong image is not waited for.
func TestChangeInterruptsBringUp(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.slow = time.Hour
		l := w.boot(t)
		defer l.Close()
		apply(t, l, newThing("web", "wrong", ""))
		time.Sleep(time.Second)
		w.mu.Lock()
		w.slow = time.Millisecond
		w.mu.Unlock()
		apply(t, l, newThing("web", "right", ""))
		time.Sleep(time.Second)
		if got := w.runs()["web"]; got != "right" {
			t.Errorf("runs %q", got)
		}
	})
}

// Results of Apply, and that a dry run or a failing disk changes nothing.
func TestApplyTellsAndStoresAllOrNone(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		l := w.boot(t)
		defer l.Close()
		apply(t, l, newThing("a", "1", ""))
		objects := []object.Object{newThing("a", "1", ""), newThing("b", "1", "")}
		results, err := l.Apply(t.Context(), objects, true, anything, nothing)
		if err != nil || results[0].Action != Unchanged || results[1].Action != Created || len(l.Keys()) != 1 {
			t.Errorf("a dry run: %+v, %v, and there are %v", results, err, l.Keys())
		}
		if _, err := l.Apply(t.Context(), objects, false, func(there []object.Object) error {
			return fmt.Errorf("%d are there", len(there))
		}, nothing); err == nil || err.Error() != "1 are there" {
			t.Errorf("refused by the check: %v", err)
		}
		w.breaks(true)
		if _, err := l.Apply(t.Context(), objects, false, anything, nothing); !errors.Is(err, errDisk) || len(l.Keys()) != 1 {
			t.Errorf("a failing disk: %v, and there are %v", err, l.Keys())
		}
		if err := l.Delete(t.Context(), keyOf("a")); !errors.Is(err, errDisk) {
			t.Errorf("deleted on a failing disk: %v", err)
		}
		w.breaks(false)
		synctest.Wait()
		if o := observed(t, l, "a"); o.Phase != object.Running {
			t.Errorf("what was not deleted is %+v", o)
		}
	})
}

func phaseOf(s object.State) object.Phase {
	if s.Status == nil {
		return ""
	}
	return s.Status.Common().Phase
}

// Those who watch see each object and each change, once for several at once.
func TestWatch(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		l := w.boot(t)
		defer l.Close()
		apply(t, l, newThing("a", "1", ""), newThing("b", "1", ""))
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		var seen []string
		ended := make(chan error, 1)
		go func() {
			ended <- l.Watch(ctx, "Thing", "a", func(event string, s object.State) error {
				seen = append(seen, fmt.Sprint(event, " ", s.Name, " ", phaseOf(s)))
				return nil
			})
		}()
		synctest.Wait()
		w.crash("a")
		w.crash("b")
		synctest.Wait()
		if err := l.Delete(t.Context(), keyOf("a")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if first, last := seen[0], seen[len(seen)-1]; first != "set a Running" || last != "deleted a " || !slices.Contains(seen, "set a Waiting") {
			t.Errorf("seen %q", seen)
		}
		errStop := errors.New("enough")
		if err := l.Watch(t.Context(), "", "", func(string, object.State) error { return errStop }); !errors.Is(err, errStop) {
			t.Errorf("got %v", err)
		}
	})
}
