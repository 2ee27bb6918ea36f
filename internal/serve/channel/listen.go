package channel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// maxAttempts bounds the connections that Accept looks at.
const maxAttempts = 64

// helloWait bounds how long a worker takes from its start to its hello, before
// it loads anything.
const helloWait = 2 * time.Minute

// ModelError is the worker's refusal of its model: not a model, an operator
// that the engine does not know, a kind of tensor that cannot be served.
// Starting the worker again would not help.
type ModelError struct{ Text string }

func (e *ModelError) Error() string { return e.Text }

// Listener waits for the one worker that sees its socket.
type Listener struct {
	l      *net.UnixListener
	socket string
}

// newSocket is the socket's name before the worker may see it.
const newSocket = ".new"

// Listen makes the socket, in the place of one that an earlier daemon left.
// Its folder, made where absent, must be out of reach of everyone but the
// worker, who needs no right to write there.
func Listen(socket string) (*Listener, error) {
	dir := filepath.Dir(socket)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("make the worker's socket folder: %w", err)
	}
	// The worker's user is another, and it may be trying already: one that is not
	// allowed to connect ends. So the socket gets its name last. It need not
	// outlive a power failure.
	name := filepath.Join(dir, newSocket)
	if err := remove(name); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: name, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(name, 0o666), unix.Rename(name, socket)); err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(name))
	}
	return &Listener{l, socket}, nil
}

// Close gives the socket up.
func (l *Listener) Close() error { return errors.Join(l.l.Close(), remove(l.socket)) }

func remove(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Accept waits for the worker and agrees on a version with it. Connections of
// processes that owned does not know are closed. It fails when ctx ends, when
// no worker says hello in time, and with an error that wraps ErrProtocol when
// one speaks no version that this daemon knows.
func (l *Listener) Accept(ctx context.Context, owned func(pid int) bool) (*Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, helloWait, fmt.Errorf("the worker did not connect within %v", helloWait))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.l.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for range maxAttempts {
		nc, err := l.l.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				_ = nc.Close()
			}
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("wait for the worker: %w", err)
		}
		pid, err := peer(nc)
		if err != nil || !owned(pid) {
			_ = nc.Close()
			continue
		}
		c, err := newConn(nc, pid)
		if err != nil {
			continue
		}
		if err = c.hello(ctx); err == nil {
			return c, nil
		}
		_ = c.conn.Close()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			<-ctx.Done() // whose deadline it was
			return nil, context.Cause(ctx)
		}
		if errors.Is(err, ErrProtocol) || ctx.Err() != nil {
			return nil, err
		}
		// It went away at once; the next one may be better.
	}
	return nil, fmt.Errorf("%w: %d connections without a hello", ErrProtocol, maxAttempts)
}

// peer is the process that connected, as this one numbers it.
func peer(nc *net.UnixConn) (int, error) {
	raw, err := nc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err == nil {
		err = e
	}
	if err != nil {
		return 0, fmt.Errorf("ask who the worker is: %w", err)
	}
	return int(cred.Pid), nil
}

// hello agrees on the version.
func (c *Conn) hello(ctx context.Context) error {
	deadline, _ := ctx.Deadline()
	msg, err := c.exchange(nil, nil, helloKind, deadline)
	if err != nil {
		return err
	}
	var hello helloMessage
	if err := decode(msg, helloKind, &hello); err != nil {
		return err
	}
	version, err := negotiate(hello.Versions)
	welcome := welcomeMessage{Version: version}
	if err != nil {
		welcome.Error = err.Error()
	}
	return errors.Join(err, c.send(welcomeKind, welcome, nil))
}

// Load asks the worker to load a model and waits, as long as ctx allows, until
// it has. It returns a *ModelError when the worker refuses the model.
func (c *Conn) Load(ctx context.Context, load Load) error {
	stop := context.AfterFunc(ctx, func() { c.fail(context.Cause(ctx)) })
	defer stop()
	msg, err := encode(loadKind, load)
	if err != nil {
		return err
	}
	if msg, err = c.exchange(msg, nil, loadedKind, time.Time{}); err != nil {
		return err
	}
	var loaded loadedMessage
	if err := decode(msg, loadedKind, &loaded); err != nil {
		return err
	}
	if loaded.Error != "" {
		return &ModelError{Text: loaded.Error[:min(len(loaded.Error), MaxText)]}
	}
	c.meta = loaded.Metadata
	return c.meta.check()
}

// controlWait bounds the exchanges that a worker answers without computing.
const controlWait = 30 * time.Second

// Share hands the region to the worker. The region outlives the connection, so
// that a request in a slot can go to the next worker.
func (c *Conn) Share(region *Region) error {
	msg, err := encode(regionKind, regionMessage(region.Size))
	if err != nil {
		return err
	}
	msg, err = c.exchange(msg, unix.UnixRights(int(region.fd.Fd())), mappedKind, time.Now().Add(controlWait))
	if err != nil {
		return err
	}
	var mapped errorMessage
	if err := decode(msg, mappedKind, &mapped); err != nil {
		return err
	}
	if mapped.Error != "" {
		return fmt.Errorf("the worker cannot map the shared memory: %.1000s", mapped.Error)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.region, c.slots = region, make([]underWay, region.Slots)
	return nil
}

// Statistics asks the worker what it has counted. A worker that computes one
// run at a time answers after that.
func (c *Conn) Statistics(timeout time.Duration) (Statistics, error) {
	var s Statistics
	msg, err := encode(statisticsKind, struct{}{})
	if err != nil {
		return s, err
	}
	if msg, err = c.exchange(msg, nil, figuresKind, time.Now().Add(timeout)); err == nil {
		err = decode(msg, figuresKind, &s)
	}
	return s, err
}

// Unload asks the worker to forget its model, after which it may Load another.
// No run may be under way.
func (c *Conn) Unload() error {
	msg, err := encode(unloadKind, struct{}{})
	if err != nil {
		return err
	}
	if msg, err = c.exchange(msg, nil, unloadedKind, time.Now().Add(controlWait)); err != nil {
		return err
	}
	var unloaded errorMessage
	if err := decode(msg, unloadedKind, &unloaded); err != nil {
		return err
	}
	if unloaded.Error != "" {
		return fmt.Errorf("the worker cannot unload its model: %.1000s", unloaded.Error)
	}
	return nil
}
