package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"oscine.dev/oscine/internal/update"
)

// readAll reads a file of at most most bytes. One that is longer is
// [update.ErrTooLong] where exact says that its length was signed for, and too
// large anyway.
func (s *source) readAll(ctx context.Context, path string, most int64, exact bool) ([]byte, error) {
	stream, err := s.stream(ctx, path, 0)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	text, err := io.ReadAll(io.LimitReader(stream, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > most {
		what := "it may have"
		if exact {
			what = "the metadata says"
		}
		return nil, fmt.Errorf("%w: %s has more than the %d bytes that %s", update.ErrTooLong, path, most, what)
	}
	return text, nil
}

// stream reads a file from an offset, not faster than allowed. When the location
// fails it is opened again where it broke off.
func (s *source) stream(ctx context.Context, path string, at int64) (io.ReadCloser, error) {
	r := &stream{source: s, ctx: ctx, path: path, at: at}
	if err := r.reopen(nil); err != nil {
		return nil, err
	}
	return r, nil
}

type stream struct {
	*source
	ctx   context.Context
	path  string
	at    int64
	tries int
	body  io.ReadCloser
}

// reopen opens the file where reading ended with err, after a while unless it is
// the first time, and gives up after some tries in a row.
func (r *stream) reopen(err error) error {
	for {
		if err != nil {
			if !errors.Is(err, update.ErrUnreachable) || r.tries == retries {
				return err
			}
			select {
			case <-time.After(r.wait << r.tries):
			case <-r.ctx.Done():
				return context.Cause(r.ctx)
			}
			r.tries++
		}
		r.body, err = r.source.at.open(r.ctx, r.path, r.at)
		if err == nil {
			return nil
		}
	}
}

func (r *stream) Read(p []byte) (int, error) {
	for {
		n, err := r.body.Read(p[:r.limit.most(len(p))])
		r.at += int64(n)
		if n > 0 {
			r.tries = 0
			if err := r.limit.wait(r.ctx, n); err != nil {
				return n, err
			}
		}
		if n > 0 || err == nil || errors.Is(err, io.EOF) {
			return n, ignoreAfter(n, err)
		}
		r.body.Close()
		if err := r.reopen(asUnreachable(r.ctx, r.path, err)); err != nil {
			r.body = io.NopCloser(eof{})
			return 0, err
		}
	}
}

// ignoreAfter leaves an error for the next call when bytes came.
func ignoreAfter(n int, err error) error {
	if n > 0 {
		return nil
	}
	return err
}

func asUnreachable(ctx context.Context, path string, err error) error {
	if errors.Is(err, update.ErrUnreachable) || errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %s: %w", update.ErrUnreachable, path, err)
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

func (r *stream) Close() error { return r.body.Close() }

// limit spreads reading so that no second has more bytes than it says.
type limit struct {
	perSecond int64
	next      time.Time // when the bytes read so far are paid for
}

func newLimit(perSecond int64) *limit { return &limit{perSecond: perSecond} }

// most is how many bytes one read may have: a tenth of a second's.
func (l *limit) most(n int) int {
	if l.perSecond <= 0 {
		return n
	}
	return int(min(int64(n), max(l.perSecond/10, 1)))
}

func (l *limit) wait(ctx context.Context, n int) error {
	if l.perSecond <= 0 {
		return nil
	}
	now := time.Now()
	if l.next.Before(now) {
		l.next = now
	}
	l.next = l.next.Add(time.Duration(int64(n) * int64(time.Second) / l.perSecond))
	select {
	case <-time.After(l.next.Sub(now)):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
