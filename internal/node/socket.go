package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/listen"
	"oscine.dev/oscine/internal/node/access"
	"oscine.dev/oscine/internal/node/kind/workload"
	"oscine.dev/oscine/internal/serve/fastpath"
	"oscine.dev/oscine/internal/unixconn"
)

// inferenceDir is the folder that workloads get which ask for inference. The one
// above it is closed, so that nobody else on the host finds the socket.
func (n *Node) inferenceDir() string {
	return filepath.Join(n.config.RunDir, "inference", "workloads")
}

// serveSocket answers workloads on the same node over a Unix socket, until the
// node's life ends.
func (n *Node) serveSocket() error {
	dir := n.inferenceDir()
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o700), os.Chmod(dir, 0o755)); err != nil {
		return fmt.Errorf("make the folder of the inference socket: %w", err)
	}
	path := filepath.Join(dir, workload.InferenceSocket)
	_ = os.Remove(path) // of an earlier daemon
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listen for workloads: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil { // users of all containers reach it, where it is mounted
		return errors.Join(err, l.Close())
	}
	server := &http.Server{Handler: n.tokens.Guard(false, n.inference), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10, ConnContext: peer, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	bounded := listen.New(unixconn.Listener{Listener: l}, listen.Limits{Strangers: 512, StrangersPerAddress: 512, Clients: 4096, ClientsPerAddress: 4096})
	bounded.Watch(server)
	context.AfterFunc(n.life, func() { server.Close() })
	n.wg.Go(func() {
		if err := fastpath.Serve(server, bounded); !errors.Is(err, http.ErrServerClosed) {
			n.log.Error("the inference socket of workloads is closed", "error", err)
		}
	})
	return nil
}

// peer names the client of a connection by its user: containers have users of
// their own.
func peer(ctx context.Context, c net.Conn) context.Context {
	socket, ok := listen.Socket(c).(*unixconn.Conn)
	if !ok {
		return ctx
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return ctx
	}
	var who *unix.Ucred
	if broken := raw.Control(func(fd uintptr) { who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); broken != nil || err != nil {
		return ctx
	}
	return access.Named(ctx, fmt.Sprintf("user %d", who.Uid))
}
