package reconcile

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"oscine.dev/oscine/internal/object"
)

// slowly applies a thing whose placement takes an hour to find. It returns when
// that is under way.
func slowly(t *testing.T, l *Loop, dryRun bool, thing *thing) (landed chan error) {
	t.Helper()
	landed = make(chan error, 1)
	go func() {
		_, err := l.Apply(t.Context(), []object.Object{thing}, dryRun, anything, func([]Result) { time.Sleep(time.Hour) })
		landed <- err
	}()
	synctest.Wait()
	return landed
}

// While a placement is searched for, others are applied, deleted and read, and
// only changes of the same object wait.
func TestSlowPlacementHoldsNobodyUp(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		l := w.boot(t)
		defer l.Close()
		apply(t, l, newThing("web", "1", ""), newThing("old", "1", ""))
		synctest.Wait()
		began := time.Now()
		dry, landed := slowly(t, l, true, newThing("old", "2", "")), slowly(t, l, false, newThing("web", "2", ""))
		var seen []string
		if _, err := l.Apply(t.Context(), []object.Object{newThing("other", "1", "")}, false, func(there []object.Object) error {
			for _, obj := range there {
				seen = append(seen, obj.Key().Name+obj.(*thing).Spec.Text)
			}
			return nil
		}, nothing); err != nil {
			t.Error(err)
		}
		if want := []string{"old1", "web2"}; !slices.Equal(seen, want) {
			t.Errorf("the check saw %q, want what is stored: %q", seen, want)
		}
		if err := l.Delete(t.Context(), keyOf("old")); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if o := observed(t, l, "web"); o.Phase != object.Running || w.runs()["web"] != "1" || w.runs()["other"] != "1" {
			t.Errorf("meanwhile %+v, running %v", o, w.runs())
		}
		if d := time.Since(began); d > 0 {
			t.Errorf("the others waited for %v", d)
		}
		brief, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := l.Delete(brief, keyOf("web")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("deleted what is being applied: %v", err)
		}
		third := make(chan error, 1)
		go func() {
			_, err := l.Apply(t.Context(), []object.Object{newThing("web", "3", "")}, false, anything, nothing)
			third <- err
		}()
		for _, ended := range []chan error{dry, landed, third} {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if got := w.runs()["web"]; got != "3" {
			t.Errorf("runs %q, want what was applied last", got)
		}
	})
}

// Close waits for an Apply under way, and what it stored is the next daemon's.
func TestCloseDuringAnApply(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		l := w.boot(t)
		landed := slowly(t, l, false, newThing("web", "1", ""))
		l.Close()
		if err := <-landed; err != nil {
			t.Error(err)
		}
		if n := w.starts("web"); n != 0 {
			t.Errorf("it counts as started %d times by a daemon that stopped in order", n)
		}
		l = w.boot(t)
		defer l.Close()
		synctest.Wait()
		if got := w.runs()["web"]; got != "1" {
			t.Errorf("runs %q", got)
		}
	})
}

// A removal that failed is not repeated once the object is being applied again.
func TestAppliedBeforeItsRemovalIsRepeated(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		l := w.boot(t)
		defer l.Close()
		apply(t, l, newThing("web", "1", ""))
		synctest.Wait()
		w.fail("web", errors.New("busy"))
		if err := l.Delete(t.Context(), keyOf("web")); err == nil {
			t.Fatal("deleted what cannot be")
		}
		w.fail("web", nil)
		if err := <-slowly(t, l, false, newThing("web", "2", "")); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got := w.runs()["web"]; got != "2" || len(w.records) != 1 {
			t.Errorf("runs %q, %d records", got, len(w.records))
		}
	})
}
