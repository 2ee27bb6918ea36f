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

// What is stopped stays so across daemons, through displacements and wake-ups, and gives back its
// placement; it runs again when it is started, or applied.
func TestStoppedStaysSo(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		l := w.boot(t)
		apply(t, l, newThing("web", "1", ""))
		synctest.Wait()
		w.records[keyOf("web")].Placement = json.RawMessage(`{}`)
		if err := l.StopObject(t.Context(), keyOf("web")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		l.Displace(map[string]error{keyOf("web").ID(): errors.New("its CPU is gone")})
		l.Wake(nil)
		l.Renew(func(object.Object) bool { return true })
		time.Sleep(time.Hour)
		stopped := func() {
			t.Helper()
			if o := observed(t, l, "web"); o.Phase != object.Stopped || len(w.runs()) != 0 || w.records[keyOf("web")].Placement != nil {
				t.Errorf("shown as %+v, runs %v, placement %s", o, w.runs(), w.records[keyOf("web")].Placement)
			}
		}
		stopped()
		l.Close()
		l = w.boot(t)
		defer func() { l.Close() }()
		time.Sleep(time.Hour)
		stopped()
		if err := errors.Join(l.StopObject(t.Context(), keyOf("web")), l.StartObject(t.Context(), keyOf("web"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if o := observed(t, l, "web"); o.Phase != object.Running || o.Restarts != 0 || w.ups["web"] != 2 {
			t.Errorf("started again: %+v after %d starts", o, w.ups["web"])
		}
		if err := l.StopObject(t.Context(), keyOf("web")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if r := apply(t, l, newThing("web", "1", "")); r[0].Action != Updated {
			t.Errorf("applied again: %s", r[0].Action)
		}
		synctest.Wait()
		if len(w.runs()) != 1 || w.records[keyOf("web")].Stopped {
			t.Errorf("runs %v after it was applied, stored %+v", w.runs(), w.records[keyOf("web")])
		}
	})
}

// A daemon that dies before it has stopped an object leaves that to the next.
func TestNextDaemonEndsAStop(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		l := w.boot(t)
		apply(t, l, newThing("web", "1", ""))
		synctest.Wait()
		w.fail("web", errors.New("netlink: try again"))
		if err := l.StopObject(t.Context(), keyOf("web")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if o := observed(t, l, "web"); o.Phase != object.Waiting || !strings.Contains(o.Message, "not stopped yet: netlink") || len(w.runs()) != 1 {
			t.Errorf("a stop that fails: %+v", o)
		}
		l.Close()
		w.fail("web", nil)
		l = w.boot(t)
		defer l.Close()
		synctest.Wait()
		if o := observed(t, l, "web"); o.Phase != object.Stopped || len(w.runs()) != 0 || w.ups["web"] != 1 {
			t.Errorf("shown as %+v, runs %v", o, w.runs())
		}
	})
}

func TestStartAndRestart(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		l := w.boot(t)
		defer l.Close()
		apply(t, l, newThing("web", "1", ""), newThing("job", "1", "once"))
		synctest.Wait()
		for range 2 { // what runs is restarted, and not started
			if err := errors.Join(l.StartObject(t.Context(), keyOf("web")), l.RestartObject(t.Context(), keyOf("web"))); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if o := observed(t, l, "web"); w.ups["web"] != 3 || o.Phase != object.Running || o.Restarts != 0 {
			t.Errorf("%d starts, %+v", w.ups["web"], o)
		}
		w.crash("job")
		synctest.Wait()
		if err := l.StartObject(t.Context(), keyOf("job")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if w.ups["job"] != 2 || w.runs()["job"] != "1" {
			t.Errorf("what has ended was started %d times, runs %v", w.ups["job"], w.runs())
		}
		if err := l.StopObject(t.Context(), keyOf("nobody")); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
		l.locked(func() { l.entries[keyOf("job")].machine.setAside(errSuspect) })
		for _, err := range []error{l.StopObject(t.Context(), keyOf("job")), l.StartObject(t.Context(), keyOf("job")), l.RestartObject(t.Context(), keyOf("job"))} {
			if !errors.Is(err, ErrConflict) || !errors.Is(err, errSuspect) {
				t.Errorf("of what is set aside: got %v", err)
			}
		}
		l.Close()
		if err := l.StopObject(t.Context(), keyOf("web")); !errors.Is(err, ErrConflict) {
			t.Errorf("closed: got %v, want ErrConflict", err)
		}
	})
}
