package llama

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"oscine.dev/oscine/internal/serve/language"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// readStep is how much of an answer is read at once, at most.
const readStep = 32 << 10

// Run implements worker.Session. A request without a path and a body, as the
// self-test sends it, asks whether the server is well.
func (s *session) Run(ctx context.Context, in []worker.Tensor, out *worker.Output) error {
	path, err := language.Text(in[0].Data)
	if err != nil {
		return err
	}
	body, err := language.Text(in[1].Data)
	if err != nil {
		return err
	}
	if len(path) == 0 && len(body) == 0 {
		status, answer, err := s.get("/health")
		if err != nil {
			return fmt.Errorf("%w: %w", worker.ErrEngine, err)
		}
		return put(out, status, answer)
	}
	if err := served(s.plan.Task, string(path)); err != nil {
		return err
	}
	// The transport may read the body after Do has returned.
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://llama"+string(path), bytes.NewReader(bytes.Clone(body)))
	if err != nil {
		return err
	}
	q.Header.Set("Content-Type", "application/json")
	r := &run{out: out, status: http.StatusProcessing}
	defer s.watch.enter(r)()
	answer, err := s.client.Do(q)
	if err != nil {
		s.awaitEnd(ctx)
		return fmt.Errorf("%w: llama-server: %w", worker.ErrEngine, err)
	}
	defer answer.Body.Close()
	if out.Streams() {
		return r.parts(answer)
	}
	return r.whole(answer)
}

// run is a request that the server has.
type run struct {
	mu     sync.Mutex // guards out: the watch speaks for a run that waits
	out    *worker.Output
	status int
	last   time.Time // when it last said something
	begun  bool      // some of the answer was sent
	ended  bool
}

// parts passes the answer on as it comes.
func (r *run) parts(answer *http.Response) error {
	r.mu.Lock()
	r.status = answer.StatusCode
	r.mu.Unlock()
	buffer := make([]byte, readStep)
	for {
		n, err := answer.Body.Read(buffer)
		if n > 0 {
			if err := r.send(buffer[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return r.finish()
		case err != nil:
			return fmt.Errorf("%w: llama-server broke its answer off: %w", worker.ErrEngine, err)
		}
	}
}

func (r *run) send(text []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.begun = time.Now(), true
	if err := put(r.out, r.status, text); err != nil {
		return err
	}
	return r.out.Send()
}

// finish ends an answer in parts; one without a part has an empty one.
func (r *run) finish() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	if !r.begun {
		return put(r.out, r.status, nil)
	}
	return nil
}

// endPause is how long a server that broke a connection off may take to end.
const endPause = 500 * time.Millisecond

// awaitEnd does not return before ctx ends when llama-server has ended: this
// program is about to end with it, and a request that has no answer yet is then
// tried again by the daemon.
func (s *session) awaitEnd(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(endPause):
	case <-s.ended:
		if s.dies {
			select {
			case <-ctx.Done():
			case <-s.life.Done():
			}
		}
	}
}

// whole puts the answer as a whole.
func (r *run) whole(answer *http.Response) error {
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return fmt.Errorf("%w: llama-server broke its answer off: %w", worker.ErrEngine, err)
	}
	return put(r.out, answer.StatusCode, text)
}

// put puts the wanted outputs.
func put(out *worker.Output, status int, text []byte) error {
	for _, output := range out.Wanted() {
		data := language.AppendText(nil, text)
		if output == 0 {
			data = language.AppendCode(nil, status)
		}
		if err := out.Put(tensor.Shape{1}, data); err != nil {
			return err
		}
	}
	return nil
}

// alive tells the daemon that the run goes on, unless it has just said
// something.
func (r *run) alive() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended || !r.out.Streams() || time.Since(r.last) < quiet {
		return
	}
	r.last = time.Now()
	if put(r.out, r.status, nil) == nil {
		_ = r.out.Send() // the end of the connection ends the run
	}
}
