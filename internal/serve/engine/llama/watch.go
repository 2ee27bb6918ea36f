package llama

import (
	"bufio"
	"bytes"
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/serve/channel"
)

// Pauses of the watch.
const (
	// lookEvery is how often the server is asked for its counters while it works.
	lookEvery = time.Second
	// quiet is after how long without a word a run says that it goes on.
	quiet = 5 * time.Second
)

// watch reads the server's counters while it works. They come from its loop of
// computing, so an answer shows that this turns: then runs that have nothing to
// say yet tell the daemon that they go on. A server that hangs says nothing, and
// the daemon ends the worker after the model's timeout.
type watch struct {
	look              chan struct{} // there is something to count
	prompt, generated atomic.Int64  // tokens

	mu   sync.Mutex
	runs map[*run]bool
}

func (w *watch) begin(s *session) {
	w.look, w.runs = make(chan struct{}, 1), map[*run]bool{}
	go w.loop(s)
}

// enter adds a run until the function is called.
func (w *watch) enter(r *run) (leave func()) {
	w.mu.Lock()
	w.runs[r] = true
	w.mu.Unlock()
	w.wake()
	return func() {
		r.mu.Lock() // nobody speaks for it from here on
		r.ended = true
		r.mu.Unlock()
		w.mu.Lock()
		delete(w.runs, r)
		w.mu.Unlock()
		w.wake()
	}
}

func (w *watch) wake() {
	select {
	case w.look <- struct{}{}:
	default:
	}
}

func (w *watch) loop(s *session) {
	for {
		select {
		case <-s.life.Done():
			return
		case <-w.look:
		}
		if !pause(s.life, lookEvery) {
			return
		}
		status, text, err := s.get("/metrics")
		if err != nil || status != http.StatusOK {
			w.wake()
			continue // it ends, which reap tells, or hangs, which the daemon sees
		}
		w.count(text)
		w.mu.Lock()
		runs := make([]*run, 0, len(w.runs))
		for r := range w.runs {
			runs = append(runs, r)
		}
		w.mu.Unlock()
		for _, r := range runs {
			r.alive()
		}
		if len(runs) > 0 {
			w.wake()
		}
	}
}

// pause reports false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// count reads the counters of tokens out of Prometheus' text format.
func (w *watch) count(text []byte) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		n, err := strconv.ParseFloat(value, 64)
		if err != nil || n < 0 || n > 1<<53 {
			continue
		}
		switch name {
		case "llamacpp:prompt_tokens_total":
			w.prompt.Store(int64(n))
		case "llamacpp:tokens_predicted_total":
			w.generated.Store(int64(n))
		}
	}
}

// Count implements worker.Counter.
func (s *session) Count(figures *channel.Statistics) {
	figures.PromptTokens, figures.GeneratedTokens = s.watch.prompt.Load(), s.watch.generated.Load()
	if resident, err := linux.ResidentBytes(s.cmd.Process.Pid); err == nil {
		figures.MemoryBytes += resident
	}
}
