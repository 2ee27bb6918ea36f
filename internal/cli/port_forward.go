package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
)

// maxForwarded bounds the connections of one port-forward at the same time.
const maxForwarded = 64

func newPortForwardCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "port-forward WORKLOAD [LOCAL:]REMOTE", Short: "Reach a TCP port of a workload from this computer",
		Long: `Listen on a port of this computer, on 127.0.0.1 alone, and carry each connection
through the node's API to a TCP port of a running workload, which need not be
published. LOCAL defaults to REMOTE; 0 picks any free port.
It runs until Ctrl-C. A port that listens only on the workload's own loopback
address cannot be reached.`,
		Example: "  oscine port-forward web 8080:80\n  oscine port-forward database 5432",
		Args:    exactArgs(2, "WORKLOAD and [LOCAL:]REMOTE"), ValidArgsFunction: completeObject(env, object.KindWorkload),
		RunE: func(c *cobra.Command, args []string) error {
			local, remote, err := forwardedPorts(args[1])
			if err != nil {
				return err
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			_, err = node.Objects.Get(c.Context(), connect.NewRequest(&pb.GetRequest{Kind: string(object.KindWorkload), Name: args[0]}))
			if err != nil {
				return err
			}
			l, err := (&net.ListenConfig{}).Listen(c.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(local)))
			if err != nil {
				return fmt.Errorf("cannot listen, choose another LOCAL port: %w", err)
			}
			fmt.Fprintf(env.Out, "%s → port %d of workload %s; Ctrl-C ends it\n", l.Addr(), remote, args[0])
			f := &forwarder{env: env, node: node, workload: args[0], port: remote}
			return f.serve(c.Context(), l)
		},
	}
}

func forwardedPorts(text string) (local, remote int, err error) {
	first, second, both := strings.Cut(text, ":")
	if !both {
		second = first
	}
	local, errLocal := strconv.Atoi(first)
	remote, errRemote := strconv.Atoi(second)
	if errLocal != nil || errRemote != nil || local < 0 || local > 65535 || remote < 1 || remote > 65535 {
		return 0, 0, usageError{fmt.Errorf("%q: write LOCAL:REMOTE or REMOTE, ports from 1 to 65535", text)}
	}
	return local, remote, nil
}

// forwarder carries connections to one port of a workload.
type forwarder struct {
	env      *Env
	node     *client.Client
	workload string
	port     int

	mu sync.Mutex // of env.Err
}

// serve accepts connections until ctx ends, and leaves none behind.
func (f *forwarder) serve(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var open sync.WaitGroup
	defer open.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	room := make(chan struct{}, maxForwarded)
	for {
		room <- struct{}{} // the others wait in the kernel's queue
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept: %w", err)
		}
		open.Go(func() {
			defer func() { <-room }()
			defer conn.Close() // once it is said why
			if err := f.forward(ctx, conn); err != nil && ctx.Err() == nil {
				f.mu.Lock()
				defer f.mu.Unlock()
				fmt.Fprintf(f.env.Err, "oscine: port %d of workload %s: %s\n", f.port, f.workload, firstLine(message(err)))
			}
		})
	}
}

// forward carries one connection until both halves have ended. The caller
// closes it.
func (f *forwarder) forward(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := f.node.Workloads.Forward(ctx)
	defer context.AfterFunc(ctx, func() {
		conn.Close()
		// While HTTP/2 waits for more of a request it does not look at its context.
		_ = stream.CloseRequest() // of a call that has ended already
	})()
	defer stream.CloseResponse()
	if err := stream.Send(&pb.ForwardRequest{Workload: f.workload, Port: uint32(f.port)}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if _, err := stream.Receive(); err != nil { // connected, or why not
		return err
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		buf := make([]byte, 32<<10)
		for {
			n, err := conn.Read(buf)
			if n > 0 && stream.Send(&pb.ForwardRequest{Data: buf[:n]}) != nil {
				return // receiving tells why
			}
			if errors.Is(err, io.EOF) {
				_ = stream.CloseRequest() // receiving tells of a lost stream
				return
			}
			if err != nil { // the local program is gone
				cancel()
				return
			}
		}
	}()
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := conn.Write(m.Data); err != nil {
			return nil // the local program takes no more; leaving tells the node
		}
		if m.Closed {
			if half, ok := conn.(*net.TCPConn); ok {
				_ = half.CloseWrite() // or it is gone, which reading tells
			}
		}
	}
}
