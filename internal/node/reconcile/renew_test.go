package reconcile

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"oscine.dev/oscine/internal/object"
)

// Renew brings up again what runs, without a stop or a restart that is counted,
// and tries what waits; what has finished stays so.
func TestRenewCallsUpAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		l := w.boot(t)
		defer l.Close()
		w.fail("waits", errors.New("its secret is not there"))
		apply(t, l, newThing("runs", "1", ""), newThing("other", "1", ""), newThing("waits", "1", ""), newThing("done", "1", "once"))
		synctest.Wait()
		w.crash("done")
		synctest.Wait()
		before := w.upsOf("done")
		w.fail("waits", nil)
		w.changed("runs", "other", "done")
		l.Renew(func(obj object.Object) bool { return obj.Key().Name != "other" })
		synctest.Wait()
		for name, want := range map[string]int{"runs": 2, "other": 1, "waits": 1, "done": before} {
			if got := w.upsOf(name); got != want {
				t.Errorf("%s was brought up %d times, want %d", name, got, want)
			}
		}
		for _, name := range []string{"runs", "waits"} {
			if o := observed(t, l, name); o.Phase != object.Running || o.Restarts != 0 {
				t.Errorf("%s is shown as %+v", name, o)
			}
		}
		// Where it fails it is tried again.
		w.fail("runs", errors.New("not now"))
		l.Renew(func(object.Object) bool { return true })
		synctest.Wait()
		if o := observed(t, l, "runs"); o.Phase != object.Waiting {
			t.Errorf("after a renewal that failed: %+v", o)
		}
		w.fail("runs", nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if o := observed(t, l, "runs"); o.Phase != object.Running {
			t.Errorf("after the next try: %+v", o)
		}
	})
}

func (w *world) upsOf(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ups[name]
}

// changed has Up start the named again that run.
func (w *world) changed(names ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range names {
		w.lost[name] = true
	}
}
