package journal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Query chooses lines of a journal. The zero Query is all there are now.
type Query struct {
	Tail  int       // at most the last so many lines; 0 means all, -1 none
	Since time.Time // only lines from this time on
	// Previous chooses the lines of the run before the last one, by the marks of
	// Writer.Begin; not together with Follow.
	Previous bool
	Follow   bool // go on with lines as they come, until the context ends
	// Complete says, by being closed, that no more lines come: Follow then ends
	// with the last one that is there. nil never does.
	Complete <-chan struct{}
}

// poll is how often a following reader looks for new lines.
const poll = 100 * time.Millisecond

// Read calls each with the lines of the journal at path that query chooses,
// oldest first. It returns nil at the end, each's error, or the context's;
// ErrNoPrevious where there is none. A journal that does not exist is empty, and
// with Follow awaited.
func Read(ctx context.Context, path string, query Query, each func(Line) error) error {
	r := &reader{path: path, query: query, each: each}
	defer r.close()
	if query.Previous {
		var err error
		if r.run, err = previous(ctx, path); err != nil {
			return err
		}
	}
	if err := r.history(ctx); err != nil || !query.Follow {
		return err
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for complete := false; !complete; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-query.Complete:
			complete = true
		case <-tick.C:
		}
		if err := r.advance(ctx); err != nil {
			return err
		}
	}
	return nil
}

// reader reads the older file, then the current one, then whatever takes its
// place. file stays open across a rotation, so no line is missed or seen twice.
type reader struct {
	path  string
	query Query
	each  func(Line) error

	file  *os.File
	lines *bufio.Reader
	rest  []byte // a record whose end has not been written yet
	skip  bool   // within a record that is too long

	run   *span // that alone is passed on; nil for all
	marks bool  // are passed on too
}

// history passes on what is there now.
func (r *reader) history(ctx context.Context) error {
	tail := newRing(r.query.Tail)
	each := r.each
	if r.query.Tail != 0 {
		r.each = func(line Line) error { tail.add(line); return nil }
	}
	for _, path := range []string{older(r.path), r.path} {
		if err := r.open(path); err != nil {
			return err
		}
		if err := r.drain(ctx); err != nil {
			return err
		}
	}
	r.each = each
	return tail.each(each)
}

// advance passes on what came since the last look.
func (r *reader) advance(ctx context.Context) error {
	for {
		if err := r.drain(ctx); err != nil {
			return err
		}
		next, err := r.next()
		if err != nil || next == "" {
			return err
		}
		// Lines may have come between the drain and the rotation.
		if err := r.drain(ctx); err != nil {
			return err
		}
		if err := r.open(next); err != nil {
			return err
		}
	}
}

// next names the file to go on with, "" for the one that is open.
func (r *reader) next() (string, error) {
	current, err := os.Stat(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	if r.file == nil {
		return r.path, nil
	}
	mine, err := r.file.Stat()
	if err != nil {
		return "", err
	}
	if os.SameFile(mine, current) {
		return "", nil
	}
	// After two rotations since the last look there is one file in between.
	if before, err := os.Stat(older(r.path)); err == nil && !os.SameFile(mine, before) {
		return older(r.path), nil
	}
	return r.path, nil
}

func (r *reader) open(path string) error {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	r.close()
	r.file, r.rest, r.skip = file, nil, false
	r.lines = bufio.NewReaderSize(file, maxRecord)
	return nil
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// drain passes on the whole records up to the end of the open file.
func (r *reader) drain(ctx context.Context) error {
	if r.file == nil {
		return nil
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		piece, err := r.lines.ReadSlice('\n')
		switch {
		case err == nil:
			if err := r.record(piece[:len(piece)-1]); err != nil {
				return err
			}
		case errors.Is(err, bufio.ErrBufferFull):
			r.rest, r.skip = nil, true
		case errors.Is(err, io.EOF):
			// A record in the making: keep its start for the next look.
			if !r.skip {
				r.rest = append(r.rest, piece...)
				r.skip = len(r.rest) > maxRecord
			}
			return nil
		default:
			return fmt.Errorf("read journal: %w", err)
		}
	}
}

// record passes on one record, the end of which is b.
func (r *reader) record(b []byte) error {
	if r.skip {
		r.rest, r.skip = nil, false
		return nil
	}
	if len(r.rest) > 0 {
		b = append(r.rest, b...)
		r.rest = nil
	}
	line, err := parseLine(b)
	if err != nil {
		return nil // torn or foreign: the others are still good
	}
	if r.run != nil && !r.run.holds(line) {
		return nil
	}
	if (line.Begins && !r.marks) || line.Time.Before(r.query.Since) {
		return nil
	}
	return r.each(line)
}

// ring keeps the last lines of a history.
type ring struct {
	lines []Line
	limit int
	start int
}

func newRing(limit int) *ring { return &ring{limit: max(limit, 0)} }

func (r *ring) add(line Line) {
	switch {
	case r.limit == 0:
	case len(r.lines) < r.limit:
		r.lines = append(r.lines, line)
	default:
		r.lines[r.start] = line
		r.start = (r.start + 1) % r.limit
	}
}

func (r *ring) each(f func(Line) error) error {
	for i := range r.lines {
		if err := f(r.lines[(r.start+i)%len(r.lines)]); err != nil {
			return err
		}
	}
	return nil
}

// Exists reports whether a journal was ever written at path.
func Exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
