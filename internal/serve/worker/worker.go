package worker

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

// Exit statuses of an engine program.
const (
	ExitFailed  = 1
	ExitUsage   = 2
	ExitRefused = 3 // the model cannot be served
)

// ErrEngine is wrapped by errors of a Session's Run that are no fault of the
// request: memory that could not be had, a library that failed.
var ErrEngine = errors.New("the engine failed")

// Engine loads models. Open is called on a thread whose name the threads that
// a C library starts inherit, so that the daemon knows which of them compute.
type Engine interface {
	// Flags adds the engine's own flags, such as where its library lies.
	Flags(f *flag.FlagSet)
	// Options are the names of the Model's options that the engine knows, in
	// alphabetical order. Open gets no others.
	Options() []string
	// Open loads the model. Its error is what a person reads of a model that
	// cannot be served.
	Open(path string, o Options) (Session, error)
}

// Options says how a model is to be loaded.
type Options struct {
	Threads int               // to compute with, at least 1
	Values  map[string]string // what the format does not tell, as the engine names it
	Name    string            // by which clients ask for the model; "": not known
	Memory  int64             // bytes that this program and its children may use; 0: no limit
	// Lost ends the program, for an engine that finds itself unable to go on, such
	// as by the end of a process of its own. The daemon starts another.
	Lost func(error)
}

// Session is a loaded model. Run is called by as many goroutines at once as
// the metadata says in Parallel, and by one where it says nothing.
type Session interface {
	// Metadata describes the model; it does not change. Threads is filled in.
	Metadata() channel.Metadata
	// Run computes the outputs for the inputs, which are those of the metadata,
	// checked against it. It ends early where it can once ctx is done. The
	// memory of the inputs lies outside the Go heap. Errors are the request's
	// fault unless they wrap ErrEngine.
	Run(ctx context.Context, inputs []Tensor, out *Output) error
	// Close frees the model.
	Close() error
}

// Elsewhere is implemented by sessions whose Run waits for another process that
// computes. Then no thread of this one is kept for each run: waking it for every
// piece of an answer would cost several switches.
type Elsewhere interface{ Elsewhere() }

// Counter is implemented by sessions that know more of their work than the
// worker counts.
type Counter interface {
	// Count fills in what the session knows. It must not wait for the engine.
	Count(*channel.Statistics)
}

// Tensor is an input: its elements are little-endian; those of BYTES lie one
// after the other as tensor.Strings reads them.
type Tensor struct {
	Shape tensor.Shape
	Data  []byte
}

// spareProcessors is how many of Go's processors the worker has at least. The
// serving thread gives its own up while the engine computes and finds another
// when it comes back: with one alone it had to wait for a thread without
// urgency, once for 25 ms.
const spareProcessors = 4

// Main runs an engine program of the given name until the daemon kills it, and
// returns its exit status.
func Main(name string, engine Engine, args []string, log io.Writer) int {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(log)
	socket := flags.String("socket", "", "Unix `socket` on which the daemon listens")
	engine.Flags(flags)
	if err := flags.Parse(args); err != nil {
		return ExitUsage
	}
	if *socket == "" || flags.NArg() > 0 {
		fmt.Fprintln(log, name+": needs --socket, and no argument without a flag: it is started by oscined")
		return ExitUsage
	}
	runtime.GOMAXPROCS(max(spareProcessors, runtime.GOMAXPROCS(0)))
	// Waking late by the default 50 µs would cost more than a small inference.
	// The main thread's children inherit it.
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(log, name+": set timer slack:", err)
	}
	end := make(chan error)
	s := &server{engine: engine, say: func(format string, a ...any) { fmt.Fprintf(log, name+": "+format+"\n", a...) }, lost: func(err error) { end <- err }}
	go func() {
		// A thread of its own wakes straight from the socket.
		channel.NameThread()
		end <- s.serve(*socket)
	}()
	err := <-end
	s.say("%v", err)
	if errors.As(err, new(*channel.ModelError)) {
		return ExitRefused
	}
	return ExitFailed
}

// serve answers one daemon after the other.
func (s *server) serve(socket string) error {
	for {
		p, err := channel.Connect(socket)
		if err != nil {
			return err
		}
		err = s.attend(p)
		if closed := p.Close(); closed != nil {
			s.say("close the connection: %v", closed)
		}
		if errors.As(err, new(*channel.ModelError)) {
			return err
		}
		s.say("the daemon is gone (%v); waiting for the next", err)
	}
}

// attend answers one daemon until the connection ends.
func (s *server) attend(p *channel.Peer) error {
	c := &conn{server: s, peer: p}
	defer c.abandon()
	for {
		m, err := p.Receive()
		if err != nil {
			return err
		}
		switch {
		case m.Run != nil:
			err = c.run(m.Run)
		case m.Load != nil:
			err = c.load(*m.Load)
		case m.Statistics:
			err = p.Figures(s.statistics())
		case m.Unload:
			c.finish()
			err = p.Unloaded(reason(s.unload()))
		}
		if err != nil {
			return err
		}
	}
}

func reason(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// load loads a model, unless it is loaded already: for an earlier daemon.
func (c *conn) load(load channel.Load) error {
	s := c.server
	if s.session != nil && !s.loaded.Equal(load) {
		return errors.Join(channel.ErrProtocol, c.peer.Refuse("another model is loaded"))
	}
	if s.session == nil {
		if err := s.open(load); err != nil {
			return errors.Join(&channel.ModelError{Text: err.Error()}, c.peer.Refuse(err.Error()))
		}
		s.say("%s serves %s with %d threads", s.meta.Engine, filepath.Base(load.Path), s.meta.Threads)
	}
	if c.own == nil && c.idle == nil {
		c.start()
	}
	return c.peer.Loaded(&s.meta)
}
