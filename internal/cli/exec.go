package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/object"
)

func newExecCommand(env *Env) *cobra.Command {
	var interactive, tty bool
	c := &cobra.Command{
		Use:                   "exec [FLAGS] WORKLOAD -- COMMAND [ARG...]",
		DisableFlagsInUseLine: true,
		Short:                 "Run a program that a workload's image holds, beside it",
		Long: `Run one of the programs in the image of a running workload, in its namespaces and
with its rights. The node itself has no shell; what there is to run is the image's.
It ends when the program has ended and nothing keeps its output open.`,
		ValidArgsFunction: completeObject(env, object.KindWorkload),
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 2 || len(afterDashes(args[1:])) == 0 {
				return usageError{fmt.Errorf("needs a workload and a command: %s", c.UseLine())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			session := &execSession{env: env, start: &pb.ExecStart{Workload: args[0], Command: afterDashes(args[1:]), Tty: tty}, interactive: interactive || tty}
			return session.run(c.Context(), node.Workloads.Exec(c.Context()))
		},
	}
	c.Flags().BoolVarP(&interactive, "interactive", "i", false, "send standard input to the program")
	c.Flags().BoolVarP(&tty, "tty", "t", false, "give the program a terminal (implies -i)")
	c.Flags().SetInterspersed(false)
	return c
}

type execStream = connect.BidiStreamForClient[pb.ExecRequest, pb.ExecResponse]

type execSession struct {
	env         *Env
	start       *pb.ExecStart
	interactive bool

	mu sync.Mutex // one sender at a time
}

func (s *execSession) run(ctx context.Context, stream *execStream) error {
	if s.start.Tty {
		restore, err := s.rawTerminal(ctx, stream)
		if err != nil {
			return err
		}
		defer restore()
	}
	if err := s.send(stream, &pb.ExecRequest{Start: s.start}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if s.interactive {
		go s.pumpInput(stream)
	} else if err := s.send(stream, &pb.ExecRequest{StdinClosed: true}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return s.receive(stream)
}

func (s *execSession) send(stream *execStream, m *pb.ExecRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return stream.Send(m)
}

func (s *execSession) receive(stream *execStream) error {
	out, errOut := s.env.Out, s.env.Err
	for _, w := range []*io.Writer{&out, &errOut} {
		if !s.start.Tty && isTerminal(*w) { // a terminal of the program's own is its to steer
			plain := &plainWriter{w: *w}
			defer plain.Close()
			*w = plain
		}
	}
	for {
		m, err := stream.Receive()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return errors.New("the node closed the connection before the program ended")
			}
			return err
		}
		if _, err := out.Write(m.Stdout); err != nil {
			return err
		}
		if _, err := errOut.Write(m.Stderr); err != nil {
			return err
		}
		if m.ExitCode != nil {
			if *m.ExitCode != 0 {
				return exitError(*m.ExitCode)
			}
			return nil
		}
	}
}

func (s *execSession) pumpInput(stream *execStream) {
	buf := make([]byte, 32<<10)
	for {
		n, err := s.env.In.Read(buf)
		if n > 0 && s.send(stream, &pb.ExecRequest{Stdin: buf[:n]}) != nil {
			return
		}
		if err != nil {
			_ = s.send(stream, &pb.ExecRequest{StdinClosed: true}) // receive reports a lost stream
			return
		}
	}
}

var errNoTerminal = usageError{errors.New("--tty needs a terminal as standard input; leave it out to send data")}

// rawTerminal passes every key to the program and the window's size with it.
func (s *execSession) rawTerminal(ctx context.Context, stream *execStream) (restore func(), err error) {
	in, ok := terminalOf(s.env.In)
	if !ok {
		return nil, errNoTerminal
	}
	fd := int(in.Fd())
	old, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("set up the terminal: %w", err)
	}
	s.start.Size = windowSize(fd)
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for {
			select {
			case <-changed:
				_ = s.send(stream, &pb.ExecRequest{Resize: windowSize(fd)}) // receive reports a lost stream
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		cancel()
		signal.Stop(changed)
		_ = term.Restore(fd, old) // the terminal is gone if this fails
	}, nil
}

func windowSize(fd int) *pb.TerminalSize {
	columns, rows, err := term.GetSize(fd)
	if err != nil {
		return &pb.TerminalSize{Columns: 80, Rows: 24}
	}
	return &pb.TerminalSize{Columns: uint32(columns), Rows: uint32(rows)}
}
