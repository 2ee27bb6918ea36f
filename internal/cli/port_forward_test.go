package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/object"
)

// Forward answers what it was sent once the client has closed its half.
func (n *fakeNode) Forward(_ context.Context, stream *connect.BidiStream[pb.ForwardRequest, pb.ForwardResponse]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	if first.Workload != "web" || first.Port != 80 {
		return connect.NewError(connect.CodeFailedPrecondition, errors.New("nothing listens"))
	}
	if err := stream.Send(&pb.ForwardResponse{}); err != nil {
		return err
	}
	var got []byte
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		got = append(got, m.Data...)
	}
	for len(got) > 0 {
		k := min(len(got), 20000)
		if err := stream.Send(&pb.ForwardResponse{Data: got[:k]}); err != nil {
			return err
		}
		got = got[k:]
	}
	return stream.Send(&pb.ForwardResponse{Closed: true})
}

func TestPortForward(t *testing.T) {
	n := &fakeNode{}
	n.serve(t)
	var told bytes.Buffer
	env := &Env{Err: &told, Kinds: object.Kinds(), ConfigPath: filepath.Join(n.dir, "config")}
	node, err := env.Client()
	if err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, 2<<20)
	if _, err := rand.Read(sent); err != nil {
		t.Fatal(err)
	}
	// through sends and closes its half, and returns all that comes back.
	through := func(port int) []byte {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- (&forwarder{env: env, node: node, workload: "web", port: port}).serve(ctx, l) }()
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		go func() {
			_, _ = conn.Write(sent)
			_ = conn.(*net.TCPConn).CloseWrite()
		}()
		got, _ := io.ReadAll(conn)
		idle, err := net.Dial("tcp", l.Addr().String()) // is open when it ends
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("port-forward ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("an open connection keeps port-forward from ending")
		}
		return got
	}
	if got := through(80); !bytes.Equal(got, sent) {
		t.Errorf("got %d bytes, want the %d that were sent", len(got), len(sent))
	}
	if got := through(81); len(got) != 0 || !bytes.Contains(told.Bytes(), []byte("port 81 of workload web: nothing listens")) {
		t.Errorf("a refused port: got %d bytes, told %q", len(got), told.String())
	}
}

func TestForwardedPorts(t *testing.T) {
	for text, want := range map[string][2]int{"8080:80": {8080, 80}, "80": {80, 80}, "0:80": {0, 80}} {
		local, remote, err := forwardedPorts(text)
		if err != nil || local != want[0] || remote != want[1] {
			t.Errorf("%q: got %d:%d, %v, want %v", text, local, remote, err, want)
		}
	}
	for _, text := range []string{"", ":", "a:80", "80:0", "1:65536", "-1:80", "1:2:3"} {
		if _, _, err := forwardedPorts(text); err == nil {
			t.Errorf("%q is not refused", text)
		}
	}
}
