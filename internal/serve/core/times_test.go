package core_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/servetest"
)

// observer keeps the times of requests.
type observer struct {
	mu   sync.Mutex
	want bool
	seen []core.Times
}

func (o *observer) Begin(context.Context) *core.Times {
	if !o.want {
		return nil
	}
	return &core.Times{Began: time.Now()}
}

func (o *observer) End(_ context.Context, t *core.Times) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, *t)
}

func TestObserverSeesTheWayOfRequests(t *testing.T) {
	r := servetest.New(t)
	o := &observer{want: true}
	r.Registry.Observe(o)
	open := r.Gate("doubler")
	time.Sleep(100 * time.Millisecond) // it computes the first
	var requests sync.WaitGroup
	for i := range 3 { // they wait behind the first and share a run
		requests.Go(func() {
			if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, float32(i)); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	open()
	requests.Wait()
	if _, err := r.Ask(t.Context(), core.Request{Model: "other"}, 1); !errors.Is(err, core.ErrNotFound) {
		t.Fatal(err)
	}
	if len(o.seen) != 5 {
		t.Fatalf("%d requests were seen", len(o.seen))
	}
	shared := 0
	for _, seen := range o.seen {
		if seen.Err != nil {
			if seen.Model != "" || !seen.Sent.IsZero() || !errors.Is(seen.Err, core.ErrNotFound) {
				t.Errorf("a request to no model: %+v", seen)
			}
			continue
		}
		order := []time.Time{seen.Began, seen.Batch, seen.Sent, seen.Ended}
		if seen.Model != "m" || !slices.IsSortedFunc(order, time.Time.Compare) || seen.Began.IsZero() || seen.Batch.IsZero() || seen.Sent.IsZero() || seen.Rows != int64(seen.Requests) {
			t.Errorf("%+v", seen)
		}
		if seen.Requests > 1 {
			shared++
			if waited := seen.Batch.Sub(seen.Began); waited < 50*time.Millisecond {
				t.Errorf("a request that waited was in the queue for %v", waited)
			}
		}
	}
	if shared == 0 {
		t.Error("no requests shared a run")
	}
}

// Who follows no request costs none a byte.
func TestObserverCostsNothing(t *testing.T) {
	allocations := func(o core.Observer) float64 {
		r := servetest.New(t)
		if o != nil {
			r.Registry.Observe(o)
		}
		r.Ready("m")
		q := core.Request{Model: "m", Inputs: servetest.Row(1)}
		ctx := context.Background()
		return testing.AllocsPerRun(500, func() {
			response, err := r.Registry.Infer(ctx, q)
			if err != nil {
				t.Fatal(err)
			}
			response.Free()
		})
	}
	without, unwanted := allocations(nil), allocations(&observer{})
	if without > 1 || unwanted > without {
		t.Errorf("a request allocates %g times, %g with an observer that does not want it", without, unwanted)
	}
}

func TestTheQueueIsCounted(t *testing.T) {
	r := servetest.New(t)
	open := r.Gate("doubler")
	time.Sleep(100 * time.Millisecond) // it computes the first
	var requests sync.WaitGroup
	for i := range 3 {
		requests.Go(func() {
			if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, float32(i)); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	if s, err := r.Registry.Status("m"); err != nil || s.Pending != 3 || s.Rows != 0 {
		t.Errorf("%d pending, %d rows, %v", s.Pending, s.Rows, err)
	}
	open()
	requests.Wait()
	if s, err := r.Registry.Status("m"); err != nil || s.Pending != 0 || s.Rows != 4 || s.Queued < 200*time.Millisecond {
		t.Errorf("%d pending, %d rows, waited %v, %v", s.Pending, s.Rows, s.Queued, err)
	}
}
