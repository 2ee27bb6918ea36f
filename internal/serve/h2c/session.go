package h2c

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Preface is what a client begins with.
const Preface = http2.ClientPreface

// Bounds of a connection, as net/http has them.
const (
	maxStreams    = 250     // that a client may have open
	receiveWindow = 1 << 20 // bytes of all bodies that no handler has read yet
	maxFrame      = 16 << 10
	tableBytes    = 4 << 10 // of header compression
	firstWindow   = 65535   // of sending, until the client says something else
	// slowClient is how long a client may take to read what is on its way.
	slowClient = 30 * time.Second
	// renewal is how old the deadline of an idle connection becomes before it is set
	// again.
	renewal = time.Second
	// linger is how long a client that was told to go has to read the last answers, and
	// to close the connection itself.
	linger = time.Second
	// spareWorkers bounds the goroutines that wait for another request. A new one
	// would first have to grow its stack.
	spareWorkers = 4
)

// Conn is a connection.
type Conn interface {
	net.Conn
	// Send writes all of p. The deadline counts where it has to wait.
	Send(p []byte, deadline time.Time) error
}

// Session is a connection that speaks HTTP/2.
type Session struct {
	conn    Conn
	handler http.Handler
	ctx     context.Context // for its values
	idle    time.Duration   // after which a connection without requests is closed; 0: never
	log     *log.Logger     // nil: the standard one
	remote  string
	next    chan *answer // for a goroutine that waits for a request
	ended   chan struct{}
	work    sync.WaitGroup // requests

	// Of the goroutine that reads.
	in      *bufio.Reader
	frames  *http2.Framer
	renewed time.Time
	head    *head // of the last request: clients repeat them

	writing sync.Mutex // of what follows; it is locked before mu, never after
	out     buffer
	framer  *http2.Framer
	block   buffer
	encoder *hpack.Encoder
	second  int64 // of date
	date    string

	mu       sync.Mutex
	streams  map[uint32]*stream // with a request at work
	last     uint32             // the client's newest
	spare    int                // goroutines that wait for a request
	window   int64              // bytes that all streams may send
	initial  int64              // window of a new stream
	frame    int64              // bytes that a frame may have
	received int64              // bytes that all streams may receive
	owed     int64              // bytes that were read and that the client does not know of
	leaving  bool               // takes no more requests
	leaves   time.Time          // when reading ends; zero: not yet
	err      error              // why the connection is of no further use
}

// buffer is memory that is written to.
type buffer []byte

// Write implements io.Writer.
func (b *buffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

// New prepares to serve a connection by a server's handler and bounds. Requests have
// the values of ctx. first is what was read of the connection, from the preface on.
func New(ctx context.Context, server *http.Server, c Conn, first []byte) *Session {
	s := &Session{
		conn: c, handler: server.Handler, ctx: ctx, idle: server.IdleTimeout, log: server.ErrorLog, remote: c.RemoteAddr().String(),
		next: make(chan *answer), ended: make(chan struct{}), streams: map[uint32]*stream{},
		window: firstWindow, initial: firstWindow, frame: maxFrame, received: receiveWindow,
	}
	s.in = bufio.NewReader(io.MultiReader(bytes.NewReader(bytes.Clone(first[len(Preface):])), c))
	s.frames = http2.NewFramer(nil, s.in)
	s.frames.SetMaxReadFrameSize(maxFrame)
	s.frames.SetReuseFrames()
	s.frames.ReadMetaHeaders = hpack.NewDecoder(tableBytes, nil)
	s.frames.MaxHeaderListSize = uint32(cmp.Or(max(server.MaxHeaderBytes, 0), http.DefaultMaxHeaderBytes))
	s.framer = http2.NewFramer(&s.out, nil)
	s.encoder = hpack.NewEncoder(&s.block)
	return s
}

// Serve answers requests until the connection ends, and returns once their handlers
// have. The caller closes the connection.
func (s *Session) Serve() {
	err := s.control(func(f *http2.Framer) error {
		return errors.Join(
			f.WriteSettings(
				http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: maxStreams},
				http2.Setting{ID: http2.SettingInitialWindowSize, Val: receiveWindow},
				http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: s.frames.MaxHeaderListSize}),
			f.WriteWindowUpdate(0, receiveWindow-firstWindow))
	})
	for greeted := false; err == nil; greeted = true {
		err = s.receive(greeted)
	}
	var broken http2.ConnectionError
	switch {
	case errors.Is(err, errDone):
	case errors.As(err, &broken):
		_ = s.goAway(http2.ErrCode(broken)) // the connection ends anyway
		s.fail(err)
		_ = s.conn.SetReadDeadline(time.Now().Add(linger))
		_, _ = io.Copy(io.Discard, s.in) // closing what is not read would take back what is on its way
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		s.fail(errLeft)
	default:
		s.fail(err)
	}
	s.work.Wait()
	s.fail(net.ErrClosed)
	close(s.ended)
}

// errDone means that the client has gone away in good order, or was told to: what is
// at work is answered.
var errDone = errors.New("no more requests")

// errLeft is what handlers read where the client closed the connection: unlike io.EOF
// it is not the end of a body.
var errLeft = errors.New("the client closed the connection")

// Shutdown takes no more requests. Serve returns when those at work are answered.
func (s *Session) Shutdown() {
	_ = s.goAway(http2.ErrCodeNo) // a client that cannot be told is gone
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopReading()
}

// stopReading ends the reading soon, where nothing is at work and nothing more is
// taken. The caller holds mu.
func (s *Session) stopReading() {
	if !s.leaving || len(s.streams) > 0 {
		return
	}
	if s.leaves.IsZero() {
		s.leaves = time.Now().Add(linger)
	}
	_ = s.conn.SetReadDeadline(s.leaves)
}

// goAway tells the client which streams are still answered.
func (s *Session) goAway(code http2.ErrCode) error {
	s.mu.Lock()
	s.leaving = true
	last := s.last
	s.mu.Unlock()
	return s.control(func(f *http2.Framer) error { return f.WriteGoAway(last, code, nil) })
}

// fail ends all that reads or writes on the connection.
func (s *Session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	for _, st := range s.streams {
		st.reset(s.err)
	}
}

// control writes frames that no window holds back.
func (s *Session) control(write func(*http2.Framer) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := write(s.framer); err != nil {
		return err
	}
	return s.flush()
}

// flush sends what was written. The caller holds writing.
func (s *Session) flush() error {
	if len(s.out) == 0 {
		return nil
	}
	err := s.conn.Send(s.out, time.Now().Add(slowClient))
	if s.out = s.out[:0]; cap(s.out) > keepBuffer {
		s.out = nil
	}
	if err != nil {
		s.fail(err) // half a frame may be on its way
		_ = s.conn.Close()
	}
	return err
}

// keepBuffer bounds the memory that a connection keeps.
const keepBuffer = 64 << 10
