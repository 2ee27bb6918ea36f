package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/node"
)

// workloadAccess reaches into running workloads.
type workloadAccess interface {
	Exec(ctx context.Context, workload string, options node.ExecOptions) (exitCode int, err error)
	CopyIn(ctx context.Context, workload, path string, tar io.Reader) error
	CopyOut(ctx context.Context, workload, path string, tar io.Writer) error
	// Dial connects to a TCP port of a workload.
	Dial(ctx context.Context, workload string, port int) (net.Conn, error)
}

// workloadService implements oscine.v1.Workloads.
type workloadService struct {
	node     workloadAccess
	forwards atomic.Int64 // connections being forwarded
}

func (s *workloadService) Exec(ctx context.Context, stream *connect.BidiStream[pb.ExecRequest, pb.ExecResponse]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	start := first.Start
	if start == nil || start.Workload == "" {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("the first message must say the workload"))
	}
	stdin, input := io.Pipe()
	resize := make(chan node.TerminalSize, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(resize)
		input.CloseWithError(pumpInput(ctx, stream, input, resize))
	}()
	out := &lockedSender{stream: stream}
	code, err := s.node.Exec(ctx, start.Workload, node.ExecOptions{
		Command: start.Command, TTY: start.Tty, Size: terminalSize(start.Size), Resize: resize,
		Stdin:  stdin,
		Stdout: out.writer(func(p []byte) *pb.ExecResponse { return &pb.ExecResponse{Stdout: p} }),
		Stderr: out.writer(func(p []byte) *pb.ExecResponse { return &pb.ExecResponse{Stderr: p} }),
	})
	stdin.Close()
	if err != nil {
		return err
	}
	exit := int32(code)
	return out.send(&pb.ExecResponse{ExitCode: &exit})
}

// pumpInput carries the client's input to the process until it closes stdin
// or goes away.
func pumpInput(ctx context.Context, stream *connect.BidiStream[pb.ExecRequest, pb.ExecResponse], input *io.PipeWriter, resize chan<- node.TerminalSize) error {
	closed := false
	for {
		msg, err := stream.Receive()
		if err != nil {
			return nil // the end of input, also when the client is gone
		}
		if msg.Resize != nil {
			select {
			case resize <- terminalSize(msg.Resize):
			case <-ctx.Done():
				return nil
			}
		}
		if len(msg.Stdin) > 0 && !closed {
			if _, err := input.Write(msg.Stdin); err != nil {
				closed = true // the process takes no more; resizes still matter
			}
		}
		if msg.StdinClosed && !closed {
			input.Close()
			closed = true
		}
	}
}

func terminalSize(size *pb.TerminalSize) node.TerminalSize {
	return node.TerminalSize{Columns: uint16(min(size.GetColumns(), 65535)), Rows: uint16(min(size.GetRows(), 65535))}
}

func (s *workloadService) CopyIn(ctx context.Context, stream *connect.ClientStream[pb.CopyInRequest]) (*connect.Response[pb.CopyInResponse], error) {
	if !stream.Receive() {
		return nil, errors.Join(stream.Err(), connect.NewError(connect.CodeInvalidArgument, errors.New("the first message must say the workload and the path")))
	}
	first := stream.Msg()
	workload, path := first.Workload, first.Path
	reader := &chunks[pb.CopyInRequest]{stream: stream, data: func(m *pb.CopyInRequest) []byte { return m.Tar }, rest: first.Tar}
	if err := s.node.CopyIn(ctx, workload, path, reader); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.CopyInResponse{}), nil
}

func (s *workloadService) CopyOut(ctx context.Context, req *connect.Request[pb.CopyOutRequest], stream *connect.ServerStream[pb.Chunk]) error {
	w := writerFunc(func(p []byte) (int, error) {
		return len(p), stream.Send(&pb.Chunk{Data: p})
	})
	if err := s.node.CopyOut(ctx, req.Msg.Workload, req.Msg.Path, w); err != nil {
		return fmt.Errorf("copy %s out of %s: %w", req.Msg.Path, req.Msg.Workload, err)
	}
	return nil
}
