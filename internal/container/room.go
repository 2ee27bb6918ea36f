package container

import (
	"context"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/content"
)

// askEvery is how many bytes are stored before there has to be room again. Of a
// layer's tar stream they hold at most 512 files, for each has a header of 512
// bytes.
const askEvery = 256 << 10

// room asks whether there is room on the disk, at first and as it fills.
type room struct {
	ask  func() error
	left atomic.Int64 // bytes until the next question
}

// take is called before so many bytes are stored.
func (r *room) take(bytes int) error {
	if r.left.Add(-int64(bytes)) >= 0 {
		return nil
	}
	r.left.Store(askEvery)
	return r.ask()
}

// roomyStore is a content store whose writers ask for room.
type roomyStore struct {
	content.Store
	room *room
}

// Writer opens a writer.
func (s roomyStore) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	w, err := s.Store.Writer(ctx, opts...)
	if err != nil {
		return nil, err
	}
	return roomyWriter{w, s.room}, nil
}

type roomyWriter struct {
	content.Writer
	room *room
}

// Write stores on while there is room.
func (w roomyWriter) Write(b []byte) (int, error) {
	if err := w.room.take(len(b)); err != nil {
		return 0, err
	}
	return w.Writer.Write(b)
}
