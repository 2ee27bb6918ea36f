package reconcile

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/object"
)

// Random orders of what people, the payload and the machine do end in what was
// asked for, with nothing left over.
func TestAnyOrderEndsInWhatWasAskedFor(t *testing.T) {
	rounds := 400
	if testing.Short() {
		rounds = 40
	}
	for seed := range rounds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { anyOrder(t, rand.New(rand.NewPCG(uint64(seed), 10))) })
		})
	}
}

func anyOrder(t *testing.T, r *rand.Rand) {
	w := newWorld()
	w.slow = time.Duration(r.IntN(3)) * 700 * time.Millisecond
	l := w.boot(t)
	names := []string{"a", "bb", "ccc"}
	want := map[string]string{}
	stopped := map[string]bool{}
	var history []string
	for range 5 + r.IntN(40) {
		name := names[r.IntN(len(names))]
		did := ""
		switch r.IntN(12) {
		case 0, 1, 2:
			text := fmt.Sprint("v", r.IntN(3))
			_, err := l.Apply(t.Context(), []object.Object{newThing(name, text, "")}, false, anything, nothing)
			if err == nil {
				delete(stopped, name)
				want[name] = text
			} else if !errors.Is(err, ErrInvalid) { // it is being deleted
				t.Fatal(err)
			}
			did = fmt.Sprintf("apply %s %s: %v", name, text, err)
		case 3:
			err := l.Delete(t.Context(), keyOf(name))
			if err == nil || !errors.Is(err, ErrNotFound) {
				delete(want, name)
				delete(stopped, name)
			}
			did = fmt.Sprintf("delete %s: %v", name, err)
		case 4:
			w.crash(name)
			did = "crash " + name
		case 5:
			w.displace(l, name)
			did = "displace " + name
		case 6:
			w.fail(name, []error{nil, errors.New("not now"), Refused(errors.New("no room"))}[r.IntN(3)])
			did = "fail or repair " + name
		case 7:
			l.Close()
			l = w.boot(t)
			did = "restart"
		case 8:
			l.Wake(nil)
			did = "wake"
		case 9:
			err := l.StopObject(t.Context(), keyOf(name))
			if err == nil {
				stopped[name] = true
			}
			did = fmt.Sprintf("stop %s: %v", name, err)
		case 10, 11:
			do, verb := l.StartObject, "start"
			if r.IntN(2) == 0 {
				do, verb = l.RestartObject, "restart"
			}
			err := do(t.Context(), keyOf(name))
			if err == nil {
				delete(stopped, name)
			}
			did = fmt.Sprintf("%s %s: %v", verb, name, err)
		}
		history = append(history, did)
		time.Sleep(time.Duration(r.IntN(4)) * 900 * time.Millisecond)
	}
	for _, name := range names {
		w.fail(name, nil)
	}
	time.Sleep(10 * time.Minute) // every pause is over
	synctest.Wait()
	running := maps.Clone(want)
	maps.DeleteFunc(running, func(name, _ string) bool { return stopped[name] })
	if diff := cmp.Diff(running, w.runs()); diff != "" {
		t.Errorf("what runs (-want +got):\n%s\nafter %q", diff, history)
	}
	if len(w.lost) > 0 {
		t.Errorf("%v run on a part of the machine that they have no more, after %q", w.lost, history)
	}
	shown := map[string]string{}
	for _, s := range l.Get("", "") {
		shown[s.Key.Name] = s.Object.(*thing).Spec.Text
		phase := object.Running
		if stopped[s.Key.Name] {
			phase = object.Stopped
		}
		if o := s.Status.Common(); o.Phase != phase {
			t.Errorf("%s is %s: %s", s.Key, o.Phase, o.Message)
		}
	}
	if !maps.Equal(shown, want) || len(w.records) != len(want) {
		t.Errorf("shown %v, stored %d, want %v, after %q", shown, len(w.records), want, history)
	}
	for _, rec := range w.records {
		if rec.Starts != 0 || rec.Deleting || rec.Stopped != stopped[rec.Key.Name] {
			t.Errorf("%s is stored as starting %d, deleting %v, stopped %v", rec.Key, rec.Starts, rec.Deleting, rec.Stopped)
		}
	}
	// A daemon that starts again changes nothing.
	ups := maps.Clone(w.ups)
	l.Close()
	l = w.boot(t)
	time.Sleep(time.Minute)
	if diff := cmp.Diff(ups, w.ups); diff != "" {
		t.Errorf("starts before and after a restart (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(running, w.runs()); diff != "" {
		t.Errorf("what runs after a restart (-want +got):\n%s", diff)
	}
	l.Close()
}

func anything([]object.Object) error { return nil }

func nothing([]Result) {}
