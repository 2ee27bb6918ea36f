package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"oscine.dev/oscine/internal/printable"
)

const (
	heartbeat    = 15 * time.Second // finds out that the page has gone
	writeTimeout = 30 * time.Second
	firstPause   = time.Second
	longestPause = 15 * time.Second
)

// message is one server-sent event (HTML Living Standard §9.2).
type message struct {
	event string
	data  any
}

// problem is why a source tells nothing now; an empty Reason withdraws it.
type problem struct {
	Source  string  `json:"source"`
	Reason  string  `json:"reason"`
	Seconds float64 `json:"seconds,omitempty"` // until the next try
}

// feed is what sources write into: one stream of a page.
type feed struct {
	out chan message
}

// send returns ctx's error once the page has gone.
func (f *feed) send(ctx context.Context, event string, data any) error {
	select {
	case f.out <- message{event, data}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// source follows one thing of the node until it ends or ctx does. It calls up
// whenever the node has told something.
type source struct {
	name string
	run  func(ctx context.Context, f *feed, up func()) error
}

// stream sends what the sources tell until the page or the server goes. It
// returns once all of them have ended.
func stream(w http.ResponseWriter, r *http.Request, sources ...source) {
	ctx, cancel := context.WithCancel(r.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	w.Header().Set("Content-Type", "text/event-stream")
	f := &feed{out: make(chan message, 64)}
	for _, s := range sources {
		wg.Go(func() { s.follow(ctx, f) })
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	control := http.NewResponseController(w)
	write := func(text string) error {
		_ = control.SetWriteDeadline(time.Now().Add(writeTimeout)) // a writer without one has no slow reader
		if _, err := fmt.Fprint(w, text); err != nil {
			return err
		}
		return control.Flush()
	}
	for err := write(": oscine\n\n"); err == nil; {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			err = write(": still here\n\n")
		case m := <-f.out:
			var raw []byte
			if raw, err = json.Marshal(m.data); err == nil {
				err = write("event: " + m.event + "\ndata: " + string(raw) + "\n\n")
			}
		}
	}
}

// follow runs the source, again after a growing pause where it ends.
func (s source) follow(ctx context.Context, f *feed) {
	pause := firstPause
	for told := true; ; { // nothing is known yet
		err := s.run(ctx, f, func() {
			if told {
				told, pause = false, firstPause
				_ = f.send(ctx, "problem", problem{Source: s.name})
			}
		})
		if ctx.Err() != nil {
			return
		}
		told = true
		if err != nil && f.send(ctx, "problem", problem{s.name, reason(err), pause.Seconds()}) != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

// every runs a source's question now and at each interval, until it fails.
func every(ctx context.Context, interval time.Duration, ask func() error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := ask(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// reason is an error as a person reads it.
func reason(err error) string {
	var remote *connect.Error
	if errors.As(err, &remote) && err == error(remote) {
		return printable.Text(remote.Message())
	}
	return printable.Text(err.Error())
}
