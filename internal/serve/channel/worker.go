package channel

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/tensor"
)

// Engine runs a loaded model in the worker.
type Engine interface {
	// Metadata describes the model.
	Metadata() *Metadata
	// Infer runs the calls, as one batch where they allow it, and fills each
	// call's Result. All numbers of a call have been checked.
	Infer(calls []Call)
}

// Call is one request with its memory.
type Call struct {
	Request *Request
	Result  *Result
	Memory  []byte // the slot
	Offsets []int  // of the inputs in Memory
	End     int    // first byte behind the inputs; outputs go there
}

// Listener is the worker's end of the channel.
type Listener struct {
	fd     int
	mu     sync.Mutex
	served int           // descriptor of the connection now served, or -1
	done   chan struct{} // closed when it is served no more
}

// Listen makes the socket, taking the place of a stale one.
func Listen(socket string) (*Listener, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: socket}); err == nil {
		err = unix.Listen(fd, 4)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", socket, err), unix.Close(fd))
	}
	return &Listener{fd: fd, served: -1}, nil
}

// Serve answers connections, one at a time, until accepting fails. The latest
// connection wins: the daemon that made an older one is gone or has given up.
func (l *Listener) Serve(engine Engine) error {
	return l.each(func(fd int) { serve(fd, engine) })
}

// Refuse answers the next connection with the reason why the model cannot be
// served.
func (l *Listener) Refuse(reason string) error {
	fd, err := l.accept()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf := make([]byte, MaxMessage)
	if _, _, err := receive(fd, buf, nil); err != nil {
		return err
	}
	return sendControl(fd, modelKind, modelMessage{Version: Version, Error: reason})
}

func (l *Listener) accept() (int, error) {
	for {
		fd, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC)
		if err == nil {
			return fd, nil
		}
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED) {
			return -1, fmt.Errorf("accept: %w", err)
		}
	}
}

func (l *Listener) each(handle func(fd int)) error {
	for {
		fd, err := l.accept()
		if err != nil {
			return err
		}
		l.mu.Lock()
		old, oldDone := l.served, l.done
		if old >= 0 {
			_ = unix.Shutdown(old, unix.SHUT_RDWR)
		}
		l.mu.Unlock()
		if oldDone != nil {
			<-oldDone
		}
		done := make(chan struct{})
		l.mu.Lock()
		l.served, l.done = fd, done
		l.mu.Unlock()
		go func() {
			// A thread of its own wakes straight from the socket.
			nameThread()
			handle(fd)
			l.mu.Lock()
			l.served = -1
			_ = unix.Close(fd)
			l.mu.Unlock()
			close(done)
		}()
	}
}

func receive(fd int, buf, oob []byte) (n, oobn int, err error) {
	for {
		var flags int
		n, oobn, flags, _, err = unix.Recvmsg(fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, 0, err
		case n == 0:
			return 0, 0, errors.New("connection closed")
		case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
			return 0, 0, fmt.Errorf("%w: message too long", ErrProtocol)
		}
		return n, oobn, nil
	}
}

func send(fd int, msg []byte) error {
	for {
		err := unix.Sendto(fd, msg, unix.MSG_NOSIGNAL, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func sendControl(fd int, k kind, v any) error {
	msg, err := encodeControl(k, v)
	if err != nil {
		return err
	}
	return send(fd, msg)
}

// serve speaks with one daemon until either side gives up. Its error is of no
// use to anyone: the daemon sees the connection end.
func serve(fd int, engine Engine) {
	buf := make([]byte, MaxMessage)
	n, _, err := receive(fd, buf, nil)
	if err != nil {
		return
	}
	var hello helloMessage
	if decodeControl(buf[:n], helloKind, &hello) != nil {
		return
	}
	if sendControl(fd, modelKind, modelMessage{Version: Version, Metadata: *engine.Metadata()}) != nil || hello.Version != Version {
		return
	}
	region, err := receiveRegion(fd, buf)
	answer := mappedMessage{}
	if err != nil {
		answer.Error = err.Error()
	}
	if sendControl(fd, mappedKind, answer) != nil || err != nil {
		return
	}
	defer runtime.KeepAlive(region)
	w := workerConn{engine: engine, region: region}
	for {
		n, _, err := receive(fd, buf, nil)
		if err != nil {
			return
		}
		reply, err := w.run(buf[:n])
		if err != nil || send(fd, reply) != nil {
			return
		}
	}
}

func receiveRegion(fd int, buf []byte) (*Region, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, err := receive(fd, buf, oob)
	if err != nil {
		return nil, err
	}
	var message regionMessage
	if err := decodeControl(buf[:n], regionKind, &message); err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("%w: no descriptor came with the region", ErrProtocol)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("%w: no descriptor came with the region", ErrProtocol)
	}
	f := os.NewFile(uintptr(fds[0]), "oscine-tensors")
	defer f.Close() // the mapping is enough
	return mapRegion(f, message.Slots, message.SlotBytes)
}

// workerConn holds the memory that runs of one connection reuse.
type workerConn struct {
	engine   Engine
	region   *Region
	requests []Request
	results  []Result
	calls    []Call
	valid    []Call
	reply    []byte
}

func (w *workerConn) run(msg []byte) ([]byte, error) {
	sequence, requests, err := decodeRun(msg, w.requests)
	if err != nil {
		return nil, err
	}
	w.requests = requests
	w.results = grow(w.results, len(requests))
	w.calls = grow(w.calls, len(requests))
	w.valid = w.valid[:0]
	for i := range requests {
		call := &w.calls[i]
		call.Request, call.Result = &requests[i], &w.results[i]
		result := call.Result
		result.Err, result.Shapes, result.Offsets = "", result.Shapes[:0], result.Offsets[:0]
		if err := w.check(call); err != nil {
			result.Err = err.Error()
			continue
		}
		w.valid = append(w.valid, *call)
	}
	if len(w.valid) > 0 {
		w.engine.Infer(w.valid)
	}
	w.reply = appendDone(w.reply[:0], sequence, w.results)
	if len(w.reply) > MaxMessage {
		return nil, fmt.Errorf("%w: answer of %d bytes", ErrProtocol, len(w.reply))
	}
	return w.reply, nil
}

func (w *workerConn) check(call *Call) error {
	meta := w.engine.Metadata()
	if call.Request.Slot >= w.region.slots {
		return fmt.Errorf("%w: slot %d of %d", ErrProtocol, call.Request.Slot, w.region.slots)
	}
	call.Memory = w.region.Slot(call.Request.Slot)
	if len(call.Request.Shapes) != len(meta.Inputs) {
		return fmt.Errorf("%w: %d inputs, the model has %d", tensor.ErrShape, len(call.Request.Shapes), len(meta.Inputs))
	}
	for i, input := range meta.Inputs {
		if err := input.Shape.Accepts(call.Request.Shapes[i]); err != nil {
			return fmt.Errorf("input %q: %w", input.Name, err)
		}
	}
	offsets, end, err := Layout(meta.Inputs, call.Request.Shapes, call.Offsets)
	if err != nil {
		return err
	}
	call.Offsets, call.End = offsets, end
	if end > len(call.Memory) {
		return fmt.Errorf("%w: inputs of %d bytes, a slot has %d", tensor.ErrShape, end, len(call.Memory))
	}
	for _, output := range call.Request.Wanted {
		if output >= len(meta.Outputs) {
			return fmt.Errorf("%w: output %d of %d", ErrProtocol, output, len(meta.Outputs))
		}
	}
	return nil
}
