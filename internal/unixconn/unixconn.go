package unixconn

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/linux"
)

// Listener accepts connections of this package. Its own listener is one of Unix
// sockets.
type Listener struct{ net.Listener }

// Accept implements net.Listener. A connection for which the system has no room is
// closed.
func (l Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		socket, ok := c.(*net.UnixConn)
		if !ok {
			return c, nil
		}
		if c, err := New(socket); err == nil {
			return c, nil
		}
	}
}

// Conn is a connection over a Unix socket. It is safe for concurrent use.
type Conn struct {
	in            *os.File        // an epoll instance: readable when the socket is, and what times its readers
	wait          syscall.RawConn // of in
	local, remote net.Addr

	use sync.RWMutex // held for reading while fd is in use
	fd  int          // -1 once it is closed

	writing sync.Mutex // held by the one who writes
	mu      sync.Mutex
	closed  bool
	out     *os.File  // the socket again, while somebody waits to write; nil: nobody does
	until   time.Time // deadline of writing
}

// New takes a connection over, also where it fails.
func New(socket *net.UnixConn) (*Conn, error) {
	defer socket.Close()
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &Conn{local: socket.LocalAddr(), remote: socket.RemoteAddr(), fd: -1}
	// A copy, which the runtime does not wait for.
	if bad := raw.Control(func(fd uintptr) { c.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); bad != nil || err != nil {
		return nil, errors.Join(bad, err)
	}
	if err := c.watch(); err != nil {
		return nil, errors.Join(fmt.Errorf("wait for a Unix socket: %w", err), unix.Close(c.fd))
	}
	return c, nil
}

// watch makes the epoll instance. Nobody reads its events: that it has one is all
// that the runtime waits for.
func (c *Conn) watch() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	err = unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, c.fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP})
	if err == nil {
		err = unix.SetNonblock(fd, true) // so that the runtime waits for it
	}
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	c.in = os.NewFile(uintptr(fd), "epoll")
	if c.wait, err = c.in.SyscallConn(); err != nil {
		return errors.Join(err, c.in.Close())
	}
	return nil
}

// Read implements net.Conn. Descriptors that come are closed.
func (c *Conn) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	var came []int
	bad := raw{c}.Read(func(fd uintptr) bool {
		n, came, err = receive(int(fd), p)
		return !errors.Is(err, unix.EAGAIN)
	})
	for _, fd := range came { // outside of Read: it may take long
		_ = unix.Close(fd)
	}
	switch {
	case bad != nil:
		return 0, bad
	case err == nil && n == 0:
		return 0, io.EOF
	}
	return n, c.named("read", err)
}

// little is below how many bytes the runtime is not told of a system call. Of others it
// is: what is done with many bytes takes long, and it must look whether others wait.
const little = 8 << 10

func receive(fd int, p []byte) (n int, came []int, err error) {
	if len(p) < little {
		return linux.ReceiveNow(fd, p)
	}
	n, _, err = unix.Recvfrom(fd, p, unix.MSG_DONTWAIT) // the kernel closes what comes
	return max(n, 0), nil, err
}

func send(fd int, p []byte) (int, error) {
	if len(p) < little {
		return linux.SendNow(fd, p)
	}
	n, err := unix.SendmsgN(fd, p, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return max(n, 0), err
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (n int, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	for n < len(p) && err == nil {
		sent := 0
		bad := c.write(func(fd uintptr) bool {
			sent, err = send(int(fd), p[n:])
			return !errors.Is(err, unix.EAGAIN)
		})
		if bad != nil {
			return n, bad
		}
		n += sent
	}
	return n, c.named("write", err)
}

// named is the error of a system call as net tells it.
func (c *Conn) named(op string, err error) error {
	if err == nil {
		return nil
	}
	return &net.OpError{Op: op, Net: c.local.Network(), Source: c.local, Addr: c.remote, Err: err}
}

// write calls do, again each time when the socket has room, until it reports true.
// The caller holds writing.
func (c *Conn) write(do func(fd uintptr) bool) error {
	c.use.RLock()
	defer c.use.RUnlock()
	if c.fd < 0 {
		return net.ErrClosed
	}
	if c.late() {
		return os.ErrDeadlineExceeded
	}
	if do(uintptr(c.fd)) {
		return nil
	}
	// Large messages only come here: they are worth a few more system calls.
	fd, err := unix.FcntlInt(uintptr(c.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(fd), "socket")
	defer out.Close()
	wait, err := out.SyscallConn()
	if err != nil {
		return err
	}
	if err := c.begin(out); err != nil {
		return err
	}
	defer c.end()
	return known(wait.Write(do))
}

// late reports whether the time of writing has passed.
func (c *Conn) late() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.until.IsZero() && !time.Now().Before(c.until)
}

// begin lets deadlines and Close reach a write that waits.
func (c *Conn) begin(out *os.File) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	if err := out.SetWriteDeadline(c.until); err != nil {
		return err
	}
	c.out = out
	return nil
}

func (c *Conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = nil
}

// known is the error of a wait: its time has passed, or the connection is closed.
func known(err error) error {
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return net.ErrClosed
	}
	return err
}

// Close implements net.Conn. What waits returns.
func (c *Conn) Close() error {
	c.mu.Lock()
	closed, out := c.closed, c.out
	c.closed = true
	c.mu.Unlock()
	if closed {
		return net.ErrClosed
	}
	err := c.in.Close()
	if out != nil {
		_ = out.Close() // its writer closes it again
	}
	c.use.Lock()
	defer c.use.Unlock()
	err = errors.Join(err, unix.Close(c.fd))
	c.fd = -1
	return err
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.in.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.until = t; c.out != nil {
		return c.out.SetWriteDeadline(t)
	}
	return nil
}

// SyscallConn implements syscall.Conn.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return raw{c}, nil }

// raw lends the socket.
type raw struct{ c *Conn }

// Control implements syscall.RawConn.
func (r raw) Control(f func(fd uintptr)) error {
	r.c.use.RLock()
	defer r.c.use.RUnlock()
	if r.c.fd < 0 {
		return net.ErrClosed
	}
	f(uintptr(r.c.fd))
	return nil
}

// Read implements syscall.RawConn.
func (r raw) Read(f func(fd uintptr) bool) error {
	c := r.c
	c.use.RLock()
	defer c.use.RUnlock()
	if c.fd < 0 {
		return net.ErrClosed
	}
	return known(c.wait.Read(func(uintptr) bool { return f(uintptr(c.fd)) }))
}

// Write implements syscall.RawConn.
func (r raw) Write(f func(fd uintptr) bool) error {
	r.c.writing.Lock()
	defer r.c.writing.Unlock()
	return r.c.write(f)
}
