package serving

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"oscine.dev/oscine/internal/bench/latency"
)

// Measured is what a run counted.
type Measured struct {
	Began       time.Time          `json:"began"`
	Elapsed     time.Duration      `json:"elapsedNs"` // until the last answer
	Interrupted bool               `json:"interrupted"`
	Answered    uint64             `json:"answered"`
	Failed      uint64             `json:"failed"`
	Throughput  float64            `json:"throughput"` // requests answered in a second
	Latency     *latency.Histogram `json:"latency"`    // of those answered; in the open loop from when they were due
	// SendDelay is how long after they were due the requests of the open loop were
	// sent: what the client itself adds to their latency.
	SendDelay *latency.Histogram `json:"sendDelay,omitempty"`
	ClientCPU time.Duration      `json:"clientCPUNs"`
	Errors    []Reason           `json:"errors,omitempty"` // the most frequent first
	Timeline  []Window           `json:"timeline"`
}

// Reason is why requests failed.
type Reason struct {
	Reason  string `json:"reason"`
	Count   uint64 `json:"count"`
	Example string `json:"example,omitempty"` // what the first of them was told
}

// Window is a part of the run; a request counts where it ended.
type Window struct {
	From     time.Duration `json:"fromNs"`
	Length   time.Duration `json:"lengthNs"`
	Answered uint64        `json:"answered"`
	Failed   uint64        `json:"failed"`
	P50      time.Duration `json:"p50Ns"`
	P99      time.Duration `json:"p99Ns"`
}

// Snapshot is how far a run is.
type Snapshot struct {
	Elapsed          time.Duration
	Answered, Failed uint64
	Rate             float64 // requests answered a second since the last snapshot
	P50, P99         time.Duration
}

// Windows are short at first. When there are more than maxWindows, each two
// become one.
const (
	firstWindow = 100 * time.Millisecond
	maxWindows  = 128
	maxReasons  = 20
)

type window struct {
	latency latency.Histogram
	failed  uint64
}

// recorder counts requests as they end. It is safe for concurrent use.
type recorder struct {
	began time.Time
	begin time.Time // with the monotonic clock
	mu    sync.Mutex

	latency, delay latency.Histogram
	failed         uint64
	reasons        map[string]*Reason
	last           time.Time
	length         time.Duration // of each window
	windows        []window
	open           bool
}

func newRecorder(o Options) *recorder {
	now := time.Now()
	return &recorder{began: now.Round(0), begin: now, last: now, length: firstWindow, reasons: map[string]*Reason{}, open: o.Rate > 0}
}

func (r *recorder) add(due, sent, ended time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ended.After(r.last) {
		r.last = ended
	}
	w := r.window(ended.Sub(r.begin))
	if r.open {
		r.delay.Record(sent.Sub(due))
	}
	if err == nil {
		r.latency.Record(ended.Sub(due))
		w.latency.Record(ended.Sub(due))
		return
	}
	r.failed++
	w.failed++
	name, example := reasonOf(err)
	reason := r.reasons[name]
	if reason == nil {
		if len(r.reasons) >= maxReasons {
			name, example = "other", ""
		}
		if reason = r.reasons[name]; reason == nil {
			reason = &Reason{Reason: name, Example: example}
			r.reasons[name] = reason
		}
	}
	reason.Count++
}

// window returns that of a time since the beginning.
func (r *recorder) window(at time.Duration) *window {
	for at/r.length >= maxWindows {
		for i := range (len(r.windows) + 1) / 2 {
			w := r.windows[2*i]
			if 2*i+1 < len(r.windows) {
				w.latency.Merge(&r.windows[2*i+1].latency)
				w.failed += r.windows[2*i+1].failed
			}
			r.windows[i] = w
		}
		r.windows = r.windows[:(len(r.windows)+1)/2]
		r.length *= 2
	}
	i := int(at / r.length)
	for len(r.windows) <= i {
		r.windows = append(r.windows, window{})
	}
	return &r.windows[i]
}

func (r *recorder) measured() *Measured {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := &Measured{Began: r.began, Elapsed: r.last.Sub(r.begin), Answered: r.latency.Count(), Failed: r.failed, Latency: &r.latency, Timeline: []Window{}}
	if m.Elapsed > 0 {
		m.Throughput = float64(m.Answered) / m.Elapsed.Seconds()
	}
	if r.open {
		m.SendDelay = &r.delay
	}
	for _, reason := range r.reasons {
		m.Errors = append(m.Errors, *reason)
	}
	slices.SortFunc(m.Errors, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason))
	})
	for i := range r.windows {
		w := &r.windows[i]
		from := time.Duration(i) * r.length
		m.Timeline = append(m.Timeline, Window{From: from, Length: min(r.length, m.Elapsed-from), Answered: w.latency.Count(), Failed: w.failed,
			P50: w.latency.Quantile(.5), P99: w.latency.Quantile(.99)})
	}
	return m
}

// snapshotInterval is how often progress is told.
const snapshotInterval = 250 * time.Millisecond

func (r *recorder) report(progress func(Snapshot), done <-chan struct{}) {
	tick := time.NewTicker(snapshotInterval)
	defer tick.Stop()
	var before uint64
	last := r.begin
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		now := time.Now()
		r.mu.Lock()
		s := Snapshot{Elapsed: now.Sub(r.begin), Answered: r.latency.Count(), Failed: r.failed, P50: r.latency.Quantile(.5), P99: r.latency.Quantile(.99)}
		r.mu.Unlock()
		s.Rate = float64(s.Answered-before) / now.Sub(last).Seconds()
		before, last = s.Answered, now
		progress(s)
	}
}
