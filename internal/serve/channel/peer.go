package channel

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/tensor"
)

// Peer is the worker's end of a connection to the daemon. One goroutine
// receives; sending is safe for concurrent use.
type Peer struct {
	fd       int
	in       []byte
	requests []Request

	sending sync.Mutex
	out     []byte

	region  *Region
	watched chan struct{} // closed when the watcher has ended
	closed  atomic.Bool
}

// What a worker does between attempts to reach the daemon.
const (
	firstPause = time.Millisecond
	lastPause  = 250 * time.Millisecond
)

// Connect reaches the daemon, however long that takes, and agrees on a version
// with it. It fails where the daemon speaks none that this worker knows.
func Connect(socket string) (*Peer, error) {
	fd := -1
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		var err error
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0); err != nil {
			return nil, fmt.Errorf("make a socket: %w", err)
		}
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err == nil {
			break
		}
		_ = unix.Close(fd)
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENAMETOOLONG) {
			return nil, fmt.Errorf("connect to %s: %w", socket, err)
		}
		time.Sleep(pause) // there is no daemon now
	}
	p := &Peer{fd: fd, in: make([]byte, MaxMessage)}
	if err := p.hello(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Peer) hello() error {
	if err := p.send(helloKind, helloMessage{Versions: Versions()}); err != nil {
		return err
	}
	n, _, err := p.receive(nil)
	if err != nil {
		return err
	}
	var welcome welcomeMessage
	if err := decode(p.in[:n], welcomeKind, &welcome); err != nil {
		return err
	}
	if welcome.Error != "" {
		return fmt.Errorf("%w: the daemon says: %s", ErrProtocol, welcome.Error)
	}
	_, err = negotiate([]int{welcome.Version})
	return err
}

// Close ends the connection.
func (p *Peer) Close() error {
	p.closed.Store(true)
	if p.watched != nil {
		p.region.wake()
		<-p.watched
		_ = p.region.Close()
	}
	return unix.Close(p.fd)
}

// Region returns the shared memory, or nil before the daemon has sent it.
func (p *Peer) Region() *Region { return p.region }

// Message is what the daemon asks for: of its fields one is set.
type Message struct {
	Load       *Load
	Run        []Request // valid until the next Receive
	Statistics bool
	Unload     bool
}

// Receive waits for the daemon's next message. It takes the region by itself.
// An error means that the connection has ended.
func (p *Peer) Receive() (Message, error) {
	for {
		oob := [64]byte{} // of one descriptor
		n, oobn, err := p.receive(oob[:unix.CmsgSpace(4)])
		if err != nil {
			return Message{}, err
		}
		msg := p.in[:n]
		switch kind(msg[0]) {
		case runKind:
			p.requests, err = decodeRun(msg, p.requests)
			return Message{Run: p.requests}, err
		case loadKind:
			load := new(Load)
			return Message{Load: load}, decode(msg, loadKind, load)
		case statisticsKind:
			return Message{Statistics: true}, nil
		case unloadKind:
			return Message{Unload: true}, nil
		case regionKind:
			var answer errorMessage
			if err := p.takeRegion(msg, oob[:oobn]); err != nil {
				answer.Error = err.Error()
			}
			if err := p.send(mappedKind, answer); err != nil {
				return Message{}, err
			}
		default:
			return Message{}, fmt.Errorf("%w: unexpected message", ErrProtocol)
		}
	}
}

func (p *Peer) takeRegion(msg, oob []byte) error {
	if p.region != nil {
		return fmt.Errorf("%w: a second region", ErrProtocol)
	}
	var message regionMessage
	if err := decode(msg, regionKind, &message); err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return fmt.Errorf("%w: no descriptor came with the region", ErrProtocol)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return fmt.Errorf("%w: no descriptor came with the region", ErrProtocol)
	}
	region, err := mapRegion(os.NewFile(uintptr(fds[0]), "oscine-tensors"), Size(message))
	if err != nil {
		return err
	}
	region.populate()
	p.region = region
	return nil
}

// Watch calls changed each time when the daemon has cancelled a request, from
// a goroutine of its own, until the connection is closed. It may be called once
// the region is there.
func (p *Peer) Watch(changed func()) {
	p.watched = make(chan struct{})
	seen := atomic.LoadUint32(p.region.futex())
	go func() {
		defer close(p.watched)
		for !p.closed.Load() {
			seen = p.region.awaitCancel(seen)
			changed()
		}
	}()
}

// Cancelled reports whether the daemon has cancelled a request.
func (p *Peer) Cancelled(q *Request) bool { return p.region.cancelled(q.Slot, q.ID) }

// Loaded answers a Load.
func (p *Peer) Loaded(meta *Metadata) error {
	return p.send(loadedKind, loadedMessage{Metadata: *meta})
}

// Refuse answers a Load with the reason why the model cannot be served.
func (p *Peer) Refuse(reason string) error {
	return p.send(loadedKind, loadedMessage{Error: reason[:min(len(reason), MaxText)]})
}

// Figures answers a question for statistics.
func (p *Peer) Figures(s Statistics) error { return p.send(figuresKind, s) }

// Unloaded answers an Unload; reason is "" or why it could not be done.
func (p *Peer) Unloaded(reason string) error {
	return p.send(unloadedKind, errorMessage{Error: reason})
}

// Answer sends results.
func (p *Peer) Answer(results []Result) error {
	p.sending.Lock()
	defer p.sending.Unlock()
	p.out = appendResults(p.out[:0], results)
	if len(p.out) > MaxMessage {
		return fmt.Errorf("%w: answer of %d bytes", ErrProtocol, len(p.out))
	}
	return p.sendRaw(p.out)
}

// Check finds where the inputs of a request lie: their places, their sizes and
// the first byte behind them. Its errors are the client's fault.
func (p *Peer) Check(meta *Metadata, q *Request, offsets []int) (_ []int, end int, _ error) {
	if q.ID == 0 || p.region == nil || q.Slot >= p.region.Slots {
		return offsets, 0, fmt.Errorf("%w: request %d in slot %d", ErrProtocol, q.ID, q.Slot)
	}
	if len(q.Shapes) != len(meta.Inputs) {
		return offsets, 0, fmt.Errorf("%w: %d inputs, the model has %d", tensor.ErrShape, len(q.Shapes), len(meta.Inputs))
	}
	for i := range meta.Inputs {
		if err := meta.Inputs[i].Accepts(q.Shapes[i]); err != nil {
			return offsets, 0, fmt.Errorf("input %q: %w", meta.Inputs[i].Name, err)
		}
	}
	offsets, end, err := Layout(meta.Inputs, q.Shapes, q.Sizes, offsets)
	if err != nil {
		return offsets, 0, err
	}
	if end > p.region.SlotBytes {
		return offsets, 0, fmt.Errorf("%w: inputs of %d bytes, a slot has %d", tensor.ErrShape, end, p.region.SlotBytes)
	}
	for _, output := range q.Wanted {
		if output >= len(meta.Outputs) {
			return offsets, 0, fmt.Errorf("%w: output %d of %d", ErrProtocol, output, len(meta.Outputs))
		}
	}
	for i := range q.Shapes {
		if q.Sizes[i], err = size(&meta.Inputs[i], q.Shapes[i], q.Sizes, i); err != nil {
			return offsets, 0, err
		}
	}
	return offsets, end, nil
}

func (p *Peer) send(k kind, v any) error {
	msg, err := encode(k, v)
	if err != nil {
		return err
	}
	p.sending.Lock()
	defer p.sending.Unlock()
	return p.sendRaw(msg)
}

func (p *Peer) sendRaw(msg []byte) error {
	defer runtime.KeepAlive(p)
	for {
		err := unix.Sendto(p.fd, msg, unix.MSG_NOSIGNAL, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (p *Peer) receive(oob []byte) (n, oobn int, err error) {
	for {
		var flags int
		n, oobn, flags, _, err = unix.Recvmsg(p.fd, p.in, oob, unix.MSG_CMSG_CLOEXEC)
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
