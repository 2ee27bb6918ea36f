package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	pbconnect "oscine.dev/oscine/internal/api/oscinepb/oscinepbconnect"
	"oscine.dev/oscine/internal/node"
	"oscine.dev/oscine/internal/node/access"
	"oscine.dev/oscine/internal/pki"
)

// Dial reaches ports of this computer as those of the workload web.
func (n *quietNode) Dial(ctx context.Context, workload string, port int) (net.Conn, error) {
	if workload != "web" {
		return nil, fmt.Errorf("workload %q: %w", workload, node.ErrNotFound)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
}

// The workload answers only after the client has closed its half, so this ends
// only if both halves are carried.
func TestForward(t *testing.T) {
	list, err := access.Open(t.TempDir() + "/revoked.json")
	if err != nil {
		t.Fatal(err)
	}
	g := newGated(t, list)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		got, _ := io.ReadAll(conn)
		_, _ = conn.Write(bytes.ToUpper(got))
	}()
	port := uint32(l.Addr().(*net.TCPAddr).Port)
	_, operator := g.client("otto", pki.Operator)
	_, reader := g.client("rita", pki.Reader)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	for _, c := range []struct {
		name     string
		workload string
		port     uint32
		client   pbconnect.WorkloadsClient
		want     connect.Code
	}{
		{"a reader", "web", port, pbconnect.NewWorkloadsClient(reader, g.url()), connect.CodePermissionDenied},
		{"no workload", "other", port, pbconnect.NewWorkloadsClient(operator, g.url()), connect.CodeNotFound},
		{"no port", "web", 0, pbconnect.NewWorkloadsClient(operator, g.url()), connect.CodeInvalidArgument},
		{"no such port", "web", 1 << 16, pbconnect.NewWorkloadsClient(operator, g.url()), connect.CodeInvalidArgument},
	} {
		stream := c.client.Forward(ctx)
		if err := stream.Send(&pb.ForwardRequest{Workload: c.workload, Port: c.port}); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if _, err := stream.Receive(); connect.CodeOf(err) != c.want {
			t.Errorf("%s: got %v, want code %v", c.name, err, c.want)
		}
		stream.CloseRequest()
		stream.CloseResponse()
	}

	sent := strings.Repeat("oscine birds sing\n", 2<<20/18)
	stream := pbconnect.NewWorkloadsClient(operator, g.url()).Forward(ctx)
	if err := stream.Send(&pb.ForwardRequest{Workload: "web", Port: port}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Receive(); err != nil {
		t.Fatal(err)
	}
	for rest := sent; rest != ""; {
		n := min(len(rest), 30000)
		if err := stream.Send(&pb.ForwardRequest{Data: []byte(rest[:n])}); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := stream.CloseRequest(); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	closed := false
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got.Write(m.Data)
		closed = closed || m.Closed
	}
	if got.String() != strings.ToUpper(sent) || !closed {
		t.Errorf("got %d bytes, want %d in capitals; closed: %v", got.Len(), len(sent), closed)
	}
}
