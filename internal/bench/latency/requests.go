package latency

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/isolate/urgency"
	"oscine.dev/oscine/internal/linux"
)

// Requests is a server whose requests arrive at random, some with a tight
// deadline: what a serving path looks like to the scheduler. A dispatcher
// hands each request to an idle thread.
type Requests struct {
	Duration time.Duration `json:"duration"`
	Threads  int           `json:"threads"` // that serve
	Kinds    []RequestKind `json:"kinds"`
	Seed     uint64        `json:"seed"`
	// Urgent gives each request a FIFO priority by its deadline, as the
	// product's serving path does; else all threads keep what they have.
	Urgent bool             `json:"urgent,omitempty"`
	Policy linux.Scheduling `json:"policy"` // of the serving threads; the zero value leaves what they have
}

// RequestKind is one sort of request.
type RequestKind struct {
	Name     string        `json:"name"`
	Rate     float64       `json:"rate"`     // a second, exponential gaps
	Service  time.Duration `json:"service"`  // processor time of one
	Deadline time.Duration `json:"deadline"` // after its arrival
}

// RequestReport counts, for each kind, what was served and what came late.
type RequestReport struct {
	Kinds []KindReport `json:"kinds"`
}

// KindReport counts one kind of request.
type KindReport struct {
	Name   string    `json:"name"`
	Served uint64    `json:"served"`
	Missed uint64    `json:"missed"` // answered after their deadline, or dropped for want of a thread
	Took   Histogram `json:"took"`   // from arrival to answer
}

// MissRate is the share of missed requests.
func (k *KindReport) MissRate() float64 {
	if k.Served == 0 {
		return 0
	}
	return float64(k.Missed) / float64(k.Served)
}

// Arrival is one request of the schedule.
type Arrival struct {
	Kind int           // of Requests.Kinds
	At   int64         // CLOCK_MONOTONIC, ns
	Took time.Duration // until its answer; negative for none
}

// Schedule draws all arrivals beforehand, in order.
func (r Requests) Schedule(start int64) []Arrival {
	random := rand.New(rand.NewPCG(r.Seed, 7))
	next := make([]float64, len(r.Kinds))
	for i, k := range r.Kinds {
		next[i] = random.ExpFloat64() / k.Rate
	}
	var all []Arrival
	for {
		first := 0
		for i := range next {
			if next[i] < next[first] {
				first = i
			}
		}
		if next[first] > r.Duration.Seconds() {
			return all
		}
		all = append(all, Arrival{Kind: first, At: start + int64(next[first]*1e9)})
		next[first] += random.ExpFloat64() / r.Kinds[first].Rate
	}
}

// server is one serving thread: job is 1 + the index of its request, 0 while
// idle, and a futex.
type server struct {
	job atomic.Uint32
	tid int
	_   [48]byte // one cache line each
}

const quit = ^uint32(0)

func (r Requests) run() (*RequestReport, error) {
	if len(r.Kinds) == 0 || r.Threads < 1 {
		return nil, fmt.Errorf("requests need kinds and threads")
	}
	runtime.GOMAXPROCS(r.Threads + 4)
	all := r.Schedule(linux.Monotonic() + int64(200*time.Millisecond))
	servers := make([]server, r.Threads)
	ready, done := make(chan error), make(chan struct{})
	for i := range servers {
		go func() {
			runtime.LockOSThread()
			ready <- r.enter(&servers[i])
			servers[i].serve(r.Kinds, all)
			done <- struct{}{}
		}()
	}
	for range servers {
		if err := <-ready; err != nil {
			return nil, err
		}
	}
	err := r.dispatch(servers, all)
	for i := range servers {
		servers[i].give(quit)
		<-done
	}
	return r.Report(all), err
}

func (r Requests) enter(s *server) error {
	s.tid = unix.Gettid()
	if r.Policy != (linux.Scheduling{}) {
		return linux.SetScheduling(0, r.Policy)
	}
	return nil
}

// dispatch plays the schedule on the calling thread.
func (r Requests) dispatch(servers []server, all []Arrival) error {
	runtime.LockOSThread()
	if err := linux.SetTimerSlack(1); err != nil {
		return err
	}
	if r.Urgent {
		if err := linux.SetScheduling(0, urgency.Dispatcher()); err != nil {
			return err
		}
	}
	urgent := make([]linux.Scheduling, len(r.Kinds))
	for i, k := range r.Kinds {
		urgent[i] = urgency.For(k.Deadline)
	}
	for i := range all {
		linux.SleepUntil(all[i].At)
		s := idle(servers)
		if s == nil {
			all[i].Took = -1
			continue
		}
		if r.Urgent {
			if err := linux.SetScheduling(s.tid, urgent[all[i].Kind]); err != nil {
				return err
			}
		}
		s.give(uint32(i) + 1)
	}
	for busy(servers) {
		linux.SleepUntil(linux.Monotonic() + int64(time.Millisecond))
	}
	return nil
}

// idle returns a thread without a request, or nil.
//
//go:nosplit
func idle(servers []server) *server {
	for i := range servers {
		if servers[i].job.Load() == 0 {
			return &servers[i]
		}
	}
	return nil
}

func busy(servers []server) bool {
	for i := range servers {
		if servers[i].job.Load() != 0 {
			return true
		}
	}
	return false
}

// give hands a request to a thread.
//
//go:nosplit
func (s *server) give(job uint32) {
	s.job.Store(job)
	linux.FutexWake(&s.job)
}

func (s *server) serve(kinds []RequestKind, all []Arrival) {
	for {
		job := s.job.Load()
		switch job {
		case 0:
			linux.FutexWait(&s.job, 0)
			continue
		case quit:
			return
		}
		a := &all[job-1]
		Spend(kinds[a.Kind].Service)
		a.Took = time.Duration(linux.Monotonic() - a.At)
		s.job.Store(0)
	}
}

// Report counts what came of a schedule.
func (r Requests) Report(all []Arrival) *RequestReport {
	report := &RequestReport{}
	for _, k := range r.Kinds {
		report.Kinds = append(report.Kinds, KindReport{Name: k.Name})
	}
	for _, a := range all {
		k := &report.Kinds[a.Kind]
		k.Served++
		if a.Took < 0 || a.Took > r.Kinds[a.Kind].Deadline {
			k.Missed++
		}
		if a.Took >= 0 {
			k.Took.Record(a.Took)
		}
	}
	return report
}
