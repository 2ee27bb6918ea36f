package api

import (
	"io"
	"sync"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
)

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// lockedSender lets stdout and stderr share a stream, which may not be
// written by two goroutines at once.
type lockedSender struct {
	mu     sync.Mutex
	stream *connect.BidiStream[pb.ExecRequest, pb.ExecResponse]
}

func (l *lockedSender) send(m *pb.ExecResponse) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stream.Send(m)
}

func (l *lockedSender) writer(wrap func([]byte) *pb.ExecResponse) io.Writer {
	return writerFunc(func(p []byte) (int, error) { return len(p), l.send(wrap(p)) })
}

// chunks reads the data of a client's upload stream.
type chunks[T any] struct {
	stream *connect.ClientStream[T]
	data   func(*T) []byte
	rest   []byte
}

func (c *chunks[T]) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		if !c.stream.Receive() {
			if err := c.stream.Err(); err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
		c.rest = c.data(c.stream.Msg())
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func uploadReader(stream *connect.ClientStream[pb.Chunk]) *chunks[pb.Chunk] {
	return &chunks[pb.Chunk]{stream: stream, data: func(c *pb.Chunk) []byte { return c.Data }}
}
