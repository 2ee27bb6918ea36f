package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
)

// Bounds of forwarding: connections at the same time, for all clients, and
// what is read of one at once.
const (
	maxForwards  = 256
	forwardChunk = 32 << 10
)

// Forward carries one TCP connection to a workload. Either side may end its
// half first: the client by closing its side of the stream, the workload by a
// message with closed.
func (s *workloadService) Forward(ctx context.Context, stream *connect.BidiStream[pb.ForwardRequest, pb.ForwardResponse]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	if first.Workload == "" || first.Port == 0 || first.Port > 65535 {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("the first message must say the workload and a port from 1 to 65535"))
	}
	if s.forwards.Add(1) > maxForwards {
		s.forwards.Add(-1)
		return connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("the node forwards %d connections already: try again when one has ended", maxForwards))
	}
	defer s.forwards.Add(-1)
	conn, err := s.node.Dial(ctx, first.Workload, int(first.Port))
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := stream.Send(&pb.ForwardResponse{}); err != nil { // it is connected
		return err
	}
	toWorkload := make(chan error, 1)
	go func() {
		err := forwardIn(stream, conn)
		if err != nil {
			conn.Close()
		}
		toWorkload <- err
	}()
	if err := forwardOut(stream, conn); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	return <-toWorkload // ends with the client's half, or with ctx
}

func forwardIn(stream *connect.BidiStream[pb.ForwardRequest, pb.ForwardResponse], conn net.Conn) error {
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			if half, ok := conn.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite() // fails where the workload is gone, which reading tells
			}
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := conn.Write(m.Data); err != nil {
			return fmt.Errorf("send to the workload: %w", err)
		}
	}
}

func forwardOut(stream *connect.BidiStream[pb.ForwardRequest, pb.ForwardResponse], conn net.Conn) error {
	buf := make([]byte, forwardChunk)
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			if err := stream.Send(&pb.ForwardResponse{Data: buf[:n]}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return stream.Send(&pb.ForwardResponse{Closed: true})
		}
		if err != nil {
			return fmt.Errorf("receive from the workload: %w", err)
		}
	}
}
