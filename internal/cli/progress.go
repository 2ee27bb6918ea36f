package cli

import (
	"fmt"
	"io"
	"time"

	"oscine.dev/oscine/internal/printable"
)

// progress shows how far a transfer is, on one line of a terminal; elsewhere
// it is silent.
type progress struct {
	env   *Env
	label string
	total int64 // bytes, 0 where unknown
	bytes int64
	last  time.Time
	live  bool
}

func newProgress(env *Env, label string, total int64) *progress {
	return &progress{env: env, label: label, total: total, live: isTerminal(env.Err)}
}

// add counts bytes that came.
func (p *progress) add(n int) { p.at(p.bytes + int64(n)) }

// at says how many bytes have come.
func (p *progress) at(bytes int64) {
	p.bytes = bytes
	if !p.live || time.Since(p.last) < 100*time.Millisecond {
		return
	}
	p.last = time.Now()
	if p.total > 0 {
		fmt.Fprintf(p.env.Err, "\r\033[K%s  %3d %% of %s", p.label, 100*p.bytes/p.total, printable.Bytes(p.total))
	} else {
		fmt.Fprintf(p.env.Err, "\r\033[K%s  %s", p.label, printable.Bytes(p.bytes))
	}
}

func (p *progress) done() {
	if p.live {
		fmt.Fprint(p.env.Err, "\r\033[K")
	}
}

// newReadProgress shows how far reading is.
func newReadProgress(env *Env, label string, total int64, r io.ReadCloser) io.ReadCloser {
	return &readProgress{r, newProgress(env, label, total)}
}

type readProgress struct {
	io.ReadCloser
	bar *progress
}

func (p *readProgress) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	p.bar.add(n)
	return n, err
}

func (p *readProgress) Close() error {
	p.bar.done()
	return p.ReadCloser.Close()
}
