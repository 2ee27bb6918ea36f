package serving

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Send sends one request, of the given number, and returns when it is answered.
type Send func(ctx context.Context, number uint64) error

// Run puts load on what send reaches: first the warm-up, which is not counted.
// When ctx ends, it returns what was measured until then, marked as interrupted,
// or the reason where nothing was.
func Run(ctx context.Context, send Send, o Options) (*Measured, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	if o.Warmup > 0 {
		warm := o
		warm.Duration, warm.Count, warm.Seed = o.Warmup, 0, ^o.Seed
		warm.Progress, warm.enough, warm.observe = nil, nil, nil
		if _, err := load(ctx, send, warm); err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return load(ctx, send, o)
}

// load runs one phase.
func load(ctx context.Context, send Send, o Options) (*Measured, error) {
	before := processorTime()
	r := newRecorder(o)
	done := make(chan struct{})
	var shown sync.WaitGroup
	if o.Progress != nil {
		shown.Go(func() { r.report(o.Progress, done) })
	}
	var err error
	if o.Rate > 0 {
		err = open(ctx, send, o, r)
	} else {
		closed(ctx, send, o, r)
	}
	close(done)
	shown.Wait()
	if err != nil {
		return nil, err
	}
	m := r.measured()
	m.ClientCPU = processorTime() - before
	m.Interrupted = ctx.Err() != nil
	return m, nil
}

// afterFailure is how long a client waits after a request that failed: it does
// not fill the machine with refusals.
const afterFailure = time.Millisecond

// closed runs clients that each send one request after the other.
func closed(ctx context.Context, send Send, o Options, r *recorder) {
	var sent atomic.Uint64
	var clients sync.WaitGroup
	for range o.Clients {
		clients.Go(func() {
			for ctx.Err() == nil {
				if o.Duration > 0 && time.Since(r.begin) >= o.Duration {
					return
				}
				if o.enough != nil && o.enough(time.Since(r.begin), sent.Load()) {
					return
				}
				number := sent.Add(1) - 1
				if o.Count > 0 && number >= uint64(o.Count) {
					return
				}
				begin := time.Now()
				if one(ctx, send, o, r, number, begin, begin) != nil {
					time.Sleep(afterFailure)
				}
			}
		})
	}
	clients.Wait()
}

// open sends requests at the times of a Poisson process, whether the earlier
// ones are answered or not. Latency counts from the time when a request was due,
// so that a server that stalls cannot hide it from the client
// (coordinated omission).
func open(ctx context.Context, send Send, o Options, r *recorder) error {
	wake, err := newAlarm(ctx)
	if err != nil {
		return err
	}
	defer wake.close()
	arrivals := Poisson(o.Rate, o.Seed)
	room := make(chan struct{}, o.Clients)
	var requests sync.WaitGroup
	defer requests.Wait()
	for number := uint64(0); o.Count == 0 || number < uint64(o.Count); number++ {
		after := arrivals()
		if o.Duration > 0 && after >= o.Duration {
			if err := wake.until(r.begin.Add(o.Duration)); err != nil && ctx.Err() == nil {
				return err
			}
			return nil
		}
		due := r.begin.Add(after)
		if err := wake.until(due); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if !enter(ctx, room, o, r) {
			if ctx.Err() != nil {
				return nil
			}
			r.add(due, time.Now(), time.Now(), errUnsent)
			continue
		}
		requests.Go(func() {
			_ = one(ctx, send, o, r, number, due, time.Now()) // it is counted
			<-room
		})
	}
	return nil
}

// enter takes a place among the requests at work, and waits for one no longer
// than requests are sent: an overloaded server ends the run in time.
func enter(ctx context.Context, room chan struct{}, o Options, r *recorder) bool {
	select {
	case room <- struct{}{}:
		return true
	default:
	}
	var end <-chan time.Time
	if o.Duration > 0 {
		end = time.After(time.Until(r.begin.Add(o.Duration)))
	}
	select {
	case room <- struct{}{}:
		return true
	case <-end:
	case <-ctx.Done():
	}
	return false
}

// Poisson returns a function that tells when the next request arrives, counted
// from the first moment, for a rate in requests a second.
func Poisson(rate float64, seed uint64) func() time.Duration {
	random := rand.New(rand.NewPCG(seed, 0))
	at := 0.0
	return func() time.Duration {
		at += random.ExpFloat64() / rate
		return time.Duration(at * float64(time.Second))
	}
}

// one sends a request that was due at a time and counts what became of it.
func one(ctx context.Context, send Send, o Options, r *recorder, number uint64, due, begin time.Time) error {
	limited, cancel := context.WithTimeoutCause(ctx, o.Timeout, errTimeout)
	defer cancel()
	err := send(limited, number)
	if err != nil && ctx.Err() != nil {
		return err // cut off by the end of the run
	}
	if err != nil && errors.Is(context.Cause(limited), errTimeout) {
		err = errTimeout
	}
	now := time.Now()
	r.add(due, begin, now, err)
	if o.observe != nil {
		o.observe(observed{number, due.Sub(r.begin), now.Sub(r.begin), err != nil})
	}
	return err
}

var (
	errTimeout = errors.New("no answer within the timeout")
	errUnsent  = errors.New("not sent: as many requests as may be at a time were at work until the end")
)

// processorTime is what this process used.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
