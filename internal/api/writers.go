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
