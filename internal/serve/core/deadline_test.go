package core_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/servetest"
)

// waiting returns once the model m computes and n requests wait for it.
func waiting(r *servetest.Rig, n int) {
	r.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if busy, have := r.Registry.Waiting("m"); busy && have == n {
			return
		}
	}
	r.Fatalf("%d requests never waited", n)
}

func TestRequestThatExpiresIsNotComputed(t *testing.T) {
	r := servetest.New(t)
	open := r.Gate("doubler")
	waiting(r, 0)
	// The worker is busy for as long as we like: the refusal cannot come from it.
	_, err := r.Ask(t.Context(), core.Request{Model: "m", Timeout: 5 * time.Millisecond}, 2)
	if !errors.Is(err, core.ErrExpired) || !errdefs.IsDeadlineExceeded(err) || !strings.Contains(err.Error(), "was not computed") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if _, err := r.Ask(ctx, core.Request{Model: "m"}, 2); !errors.Is(err, core.ErrExpired) {
		t.Errorf("a context that ends at a time: got %v", err)
	}
	open()
	if _, err := r.Ask(t.Context(), core.Request{Model: "m", Timeout: time.Minute}, 2); err != nil {
		t.Errorf("a request in time: got %v", err)
	}
	s, err := r.Registry.Status("m")
	if err != nil || s.Expired != 2 {
		t.Errorf("%d expired, %v; want 2", s.Expired, err)
	}
}

// Clients that go away take their requests along: the worker computes what is
// left, and their slots are free.
func TestRequestOfClientThatLeftIsNotComputed(t *testing.T) {
	r := servetest.New(t)
	open := r.Gate("single")
	waiting(r, 0)
	ctx, leave := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	const many = core.SlotCount - 1
	for range many {
		wg.Go(func() {
			if _, err := r.Ask(ctx, core.Request{Model: "m"}, servetest.Poison); !errdefs.IsCanceled(err) {
				t.Errorf("a client that left: got %v", err)
			}
		})
	}
	waiting(r, many)
	wg.Go(func() { // waits for a slot, all being taken
		if _, err := r.Ask(ctx, core.Request{Model: "m"}, servetest.Poison); !errors.Is(err, core.ErrCanceled) {
			t.Errorf("a client that left without a slot: got %v", err)
		}
	})
	leave()
	wg.Wait()
	waiting(r, 0)
	open()
	if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, 2); err != nil {
		t.Errorf("a client that stayed: got %v", err)
	}
	s, err := r.Registry.Status("m")
	if err != nil || s.Restarts != 0 {
		t.Errorf("%+v %v: the worker computed what nobody waits for", s, err)
	}
}

// Requests that cannot share a run are taken by rank, not by arrival.
func TestWaitingRequestsAreTakenByRank(t *testing.T) {
	r := servetest.New(t)
	open := r.Gate("single")
	waiting(r, 0)
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		order []string
	)
	for i, q := range []struct {
		name    string
		request core.Request
	}{
		{"usual", core.Request{}}, {"soon", core.Request{Timeout: 40 * time.Second}}, {"sooner", core.Request{Timeout: 30 * time.Second}}, {"first", core.Request{Priority: 1}},
	} {
		q.request.Model = "m"
		wg.Go(func() {
			_, err := r.Ask(t.Context(), q.request, servetest.Sloth)
			mu.Lock()
			defer mu.Unlock()
			if order = append(order, q.name); err != nil {
				t.Errorf("%s: got %v", q.name, err)
			}
		})
		waiting(r, i+1)
	}
	open()
	wg.Wait()
	if got, want := strings.Join(order, " "), "first sooner soon usual"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestScheduleOfRequestIsChecked(t *testing.T) {
	r := servetest.New(t)
	r.Ready("m")
	for _, test := range []struct {
		q  core.Request
		ok bool
	}{
		{core.Request{Timeout: -1}, false}, {core.Request{Timeout: core.MaxTimeout + 1}, false},
		{core.Request{Priority: -1}, false}, {core.Request{Priority: core.MaxPriority + 1}, false},
		{core.Request{Priority: 7, Timeout: core.MaxTimeout}, true},
	} {
		test.q.Model = "m"
		if _, err := r.Ask(t.Context(), test.q, 2); test.ok && err != nil || !test.ok && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: got %v", test.q, err)
		}
	}
}

// recorder is an Urgency that remembers what it was told.
type recorder struct {
	mu     sync.Mutex
	events []string
	within []time.Duration
	fail   error
}

func (u *recorder) Raise(threads []int, within time.Duration) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.events, u.within = append(u.events, fmt.Sprintf("raise %d", len(threads))), append(u.within, within)
	return u.fail
}

func (u *recorder) Lower(threads []int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.events = append(u.events, fmt.Sprintf("lower %d", len(threads)))
	return nil
}

func TestWorkerIsUrgentWhileItComputes(t *testing.T) {
	r, u := servetest.New(t), &recorder{}
	r.Serve(core.Model{Name: "m", Objective: 80 * time.Second, Instances: []core.Instance{{Urgency: u}}})
	r.Wait("m")
	if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Ask(t.Context(), core.Request{Model: "m", Timeout: 30 * time.Second}, servetest.Sloth); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(u.events, ", "), "raise 1, lower 1, raise 1, lower 1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, within := range u.within {
		if within <= 30*time.Second || within > 80*time.Second {
			t.Errorf("told %v, want the objective of 80 s and not the timeout of 30 s", u.within)
		}
	}
	s, err := r.Registry.Status("m")
	if err != nil || s.Missed != 0 || s.PriorityUnavailable != "" {
		t.Errorf("%+v %v", s, err)
	}
}

// Only what the operator promised lends priority: a client could otherwise take
// the processor from others by naming a short timeout.
func TestTimeoutOfAClientLendsNoPriority(t *testing.T) {
	r, u := servetest.New(t), &recorder{}
	r.Serve(core.Model{Name: "m", Instances: []core.Instance{{Urgency: u}}})
	r.Wait("m")
	for range 3 {
		if _, err := r.Ask(t.Context(), core.Request{Model: "m", Timeout: 900 * time.Millisecond, Priority: 1}, 2); err != nil {
			t.Fatal(err)
		}
	}
	if len(u.events) != 0 {
		t.Errorf("the kernel was told %v", u.events)
	}
}

func TestRefusedUrgencyIsTold(t *testing.T) {
	r, u := servetest.New(t), &recorder{fail: errors.New("not permitted")}
	r.Serve(core.Model{Name: "m", Objective: time.Nanosecond, Instances: []core.Instance{{Urgency: u}}})
	r.Wait("m")
	for range 2 {
		if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, 2); err != nil {
			t.Fatal(err)
		}
	}
	s, err := r.Registry.Status("m")
	if err != nil || s.Missed != 2 || s.PriorityUnavailable != "not permitted" || len(u.events) != 1 {
		t.Errorf("%d missed, %q after %v, %v", s.Missed, s.PriorityUnavailable, u.events, err)
	}
}
