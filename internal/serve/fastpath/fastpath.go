package fastpath

import (
	"context"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/listen"
	"oscine.dev/oscine/internal/serve/region"
)

// endGrace is how long Serve waits for requests under way when the server ends.
const endGrace = 5 * time.Second

// Serve is server.Serve with the fast path: it answers plain requests for an
// inference by the server's Handler, with its IdleTimeout, and tells its ConnState
// of connections that have sent one. Clients of Unix sockets may hand over memfds with
// the first bytes of a request, see package region. It takes over the server's
// ConnState and ConnContext, which the caller must have set before. Connections that
// are not sockets go their usual way.
func Serve(server *http.Server, l net.Listener) error {
	p := &path{server: server, state: server.ConnState, of: server.ConnContext, room: region.NewRoom(min(allRegions, debug.SetMemoryLimit(-1)/4))}
	server.ConnState, server.ConnContext = p.changed, p.context
	server.RegisterOnShutdown(func() { p.ending.Store(true) })
	err := server.Serve(listener{l, p})
	for end := time.Now().Add(endGrace); p.working.Load() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	return err
}

// allRegions bounds the bytes of clients' shared memory, where the daemon may have
// four times that.
const allRegions = 1 << 30

// path is what the connections of one server share.
type path struct {
	server  *http.Server
	state   func(net.Conn, http.ConnState)
	of      func(context.Context, net.Conn) context.Context
	ending  atomic.Bool
	working atomic.Int64 // requests that are answered here
	date    atomic.Pointer[date]
	unused  sync.Pool // of *exchange
	room    *region.Room
}

// date is the value of the header Date in one second.
type date struct {
	second int64
	text   string
}

func (p *path) now() string {
	now := time.Now()
	d := p.date.Load()
	if d == nil || d.second != now.Unix() {
		d = &date{now.Unix(), now.UTC().Format(http.TimeFormat)}
		p.date.Store(d)
	}
	return d.text
}

// changed learns when net/http has answered a request. It keeps the connection for
// good unless it was given exactly that request: it may hold the beginning of the
// next one.
func (p *path) changed(c net.Conn, state http.ConnState) {
	if ours, ok := c.(*conn); ok && ours.left >= 0 {
		switch state {
		case http.StateIdle:
			if ours.left == 0 {
				ours.passing = false
			} else {
				ours.left = -1
			}
		case http.StateHijacked:
			ours.left = -1
		}
	}
	if p.state != nil {
		p.state(c, state)
	}
}

func (p *path) context(ctx context.Context, c net.Conn) context.Context {
	if p.of != nil {
		ctx = p.of(ctx, c)
	}
	if ours, ok := c.(*conn); ok {
		if ours.regions != nil {
			ctx = region.With(ctx, ours.regions)
		}
		ours.ctx = ctx
	}
	return ctx
}

type listener struct {
	net.Listener
	path *path
}

// Accept wraps the connections that are sockets.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	socket, ok := listen.Socket(c).(syscall.Conn)
	if !ok {
		return c, nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return c, nil
	}
	ours := &conn{Conn: c, raw: raw, path: l.path, remote: c.RemoteAddr().String(), receiver: linux.NewReceiver(raw)}
	ours.write = ours.writeNow
	if c.LocalAddr().Network() == "unix" {
		ours.regions = region.New(l.path.room)
	}
	return ours, nil
}
