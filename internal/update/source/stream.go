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

// readAll reads a file of at most most bytes from where the metadata comes from. One that
// is longer is [update.ErrTooLong] where exact says that its length was signed for, and too
// large anyway.
func (s *source) readAll(ctx context.Context, path string, most int64, exact bool) ([]byte, error) {
	stream, err := s.stream(ctx, path, 0, true)
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

// stream reads a file from an offset: where it describes releases, from where the metadata
// comes from, otherwise from the peers or the source, from that not faster than allowed.
// When the location fails the file is opened again where it broke off.
func (s *source) stream(ctx context.Context, path string, at int64, describes bool) (*stream, error) {
	r := &stream{source: s, ctx: ctx, path: path, at: at, describes: describes}
	if err := r.reopen(nil); err != nil {
		return nil, err
	}
	return r, nil
}

type stream struct {
	*source
	ctx       context.Context
	path      string
	at        int64
	describes bool
	tries     int
	body      io.ReadCloser
	from      *peer // that body is from; nil for the source
	got       int64 // bytes from there
}

// reopen opens the file where reading ended with err. It tries again after a while, at
// once where it was a peer that failed, and gives up after some tries in a row.
func (r *stream) reopen(err error) error {
	for {
		if err != nil {
			if !errors.Is(err, update.ErrUnreachable) || r.tries == r.most() {
				return err
			}
			if r.from == nil {
				select {
				case <-time.After(r.wait << r.tries):
				case <-r.ctx.Done():
					return context.Cause(r.ctx)
				}
			}
			r.tries++
		}
		if r.describes {
			r.body, err = r.described().open(r.ctx, r.path, r.at)
		} else {
			r.body, r.from, err = r.open(r.ctx, r.path, r.at)
		}
		if err == nil {
			return nil
		}
	}
}

// most is how often a file is opened again. Where there are peers to go to, metadata is
// not waited for.
func (r *stream) most() int {
	if len(r.peers) > 0 && r.describes {
		return 0
	}
	return retries
}

func (r *stream) Read(p []byte) (int, error) {
	for {
		if r.from == nil {
			p = p[:r.rate.Most(len(p))]
		}
		n, err := r.body.Read(p)
		r.at += int64(n)
		if n > 0 {
			r.tries = 0
			r.got += int64(n)
			if r.from != nil {
				r.from.took = true
			} else if err := r.rate.Wait(r.ctx, n); err != nil {
				return n, err
			}
		}
		if n > 0 || err == nil || errors.Is(err, io.EOF) {
			return n, ignoreAfter(n, err)
		}
		r.end()
		err = asUnreachable(r.ctx, r.path, err)
		if r.from != nil {
			r.restPeer(r.from, err)
		}
		if err := r.reopen(err); err != nil {
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

// end closes what is read and tells how much came.
func (r *stream) end() error {
	if r.got > 0 && r.options.Received != nil && !r.describes {
		r.options.Received(r.path, r.from.String(), r.got)
	}
	r.got = 0 // the next body may be another's
	return r.body.Close()
}

func (r *stream) Close() error { return r.end() }
