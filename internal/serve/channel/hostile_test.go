package channel

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/tensor"
)

func bytesModel() Metadata {
	spec := []tensor.Spec{{Name: "x", Type: tensor.Uint8, Shape: tensor.Shape{-1}}}
	return Metadata{Engine: "hostile 1", Inputs: spec, Outputs: spec, Streams: true}
}

// rogue is a worker that follows the protocol until the region is mapped and
// then does what a test says.
type rogue struct {
	*testing.T
	conn *net.UnixConn
}

func (r *rogue) write(msg []byte) {
	_, _ = r.conn.Write(msg) // the daemon may have hung up
}

func (r *rogue) control(k kind, v any) {
	msg, err := encode(k, v)
	if err != nil {
		r.Error(err)
	}
	r.write(msg)
}

// read returns the next message, or nil at the end.
func (r *rogue) read() []byte {
	buf := make([]byte, MaxMessage)
	n, err := r.conn.Read(buf)
	if err != nil {
		return nil
	}
	return buf[:n]
}

// requests reads the next run.
func (r *rogue) requests() []Request {
	requests, err := decodeRun(r.read(), nil)
	if err != nil {
		return make([]Request, 1) // the connection has ended
	}
	return requests
}

// hostile serves a model by a rogue, and returns the daemon's end.
func hostile(t *testing.T, act func(r *rogue)) (*Conn, *Region) {
	t.Helper()
	c, region, err := tryHostile(t, bytesModel(), act)
	if err != nil {
		t.Fatal(err)
	}
	return c, region
}

func tryHostile(t *testing.T, meta Metadata, act func(r *rogue)) (*Conn, *Region, error) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"})
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		r := &rogue{t, conn}
		r.control(helloKind, helloMessage{Versions: []int{7, Version}})
		r.read() // welcome
		r.read() // load
		r.control(loadedKind, loadedMessage{Metadata: meta})
		if r.read() == nil { // region
			return
		}
		r.control(mappedKind, errorMessage{})
		act(r)
	}()
	conn, err := l.Accept(t.Context(), func(pid int) bool { return pid == os.Getpid() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		_ = l.Close()
		<-ended
	})
	if err := conn.Load(t.Context(), Load{Path: "/model"}); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	region, err := NewRegion(Size{Slots: 4, SlotBytes: 8192})
	if err != nil {
		t.Fatal(err)
	}
	return conn, region, conn.Share(region)
}

func ask(c *Conn, stream bool, timeout time.Duration) (Result, error) {
	results := make([]Result, 1)
	part := func(int, *Result) {}
	err := c.Run([]Request{{ID: 7, Slot: 2, Stream: stream, Shapes: []tensor.Shape{{1}}}}, results, timeout, part)
	return results[0], err
}

func answer(change func(*Result)) []byte {
	r := Result{ID: 7, Slot: 2, Shapes: []tensor.Shape{{1}}, Offsets: []int{64}, Sizes: []int{1}}
	change(&r)
	return appendResults(nil, []Result{r})
}

func TestHonestAnswer(t *testing.T) {
	c, _ := hostile(t, func(r *rogue) {
		r.requests()
		r.write(answer(func(*Result) {}))
		r.read()
	})
	if got, err := ask(c, false, time.Second); err != nil || got.Code != OK || got.Offsets[0] != 64 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// Whatever numbers a worker answers, it reaches no memory but its slot.
func TestWorkerLies(t *testing.T) {
	part := func(change func(*Result)) []byte {
		return answer(func(r *Result) {
			r.Code = Partial
			change(r)
		})
	}
	for name, test := range map[string]struct {
		stream   bool
		messages [][]byte
	}{
		"outside the slot":        {messages: [][]byte{answer(func(r *Result) { r.Shapes[0][0], r.Sizes[0], r.Offsets[0] = 100, 100, 8128 })}},
		"far outside":             {messages: [][]byte{answer(func(r *Result) { r.Offsets[0] = 1 << 29 })}},
		"unaligned":               {messages: [][]byte{answer(func(r *Result) { r.Offsets[0] = 3 })}},
		"negative":                {messages: [][]byte{answer(func(r *Result) { r.Offsets[0] = -64 })}},
		"huge shape":              {messages: [][]byte{answer(func(r *Result) { r.Shapes[0] = tensor.Shape{1 << 20, 1 << 20, 1 << 20} })}},
		"shape and size disagree": {messages: [][]byte{answer(func(r *Result) { r.Sizes[0] = 2 })}},
		"no outputs":              {messages: [][]byte{answer(func(r *Result) { r.Shapes, r.Offsets, r.Sizes = nil, nil, nil })}},
		"too many outputs": {messages: [][]byte{answer(func(r *Result) {
			r.Shapes, r.Offsets, r.Sizes = append(r.Shapes, r.Shapes[0]), []int{64, 128}, []int{1, 1}
		})}},
		"a slot's bytes, twice": {messages: [][]byte{answer(func(r *Result) {
			r.Shapes, r.Offsets, r.Sizes = append(r.Shapes, r.Shapes[0]), []int{0, 0}, []int{8192, 8192}
		})}},
		"another request":     {messages: [][]byte{answer(func(r *Result) { r.ID = 8 })}},
		"request 0":           {messages: [][]byte{answer(func(r *Result) { r.ID, r.Slot = 0, 1 })}},
		"another slot":        {messages: [][]byte{answer(func(r *Result) { r.Slot = 1 })}},
		"slot of none":        {messages: [][]byte{answer(func(r *Result) { r.Slot = 4000 })}},
		"twice in a message":  {messages: [][]byte{appendResults(nil, []Result{{ID: 7, Slot: 2, Code: Failed}, {ID: 7, Slot: 2, Code: Failed}})}},
		"part of a whole":     {messages: [][]byte{part(func(*Result) {})}},
		"parts that overlap":  {stream: true, messages: [][]byte{part(func(*Result) {}), part(func(*Result) {})}},
		"empty parts, always": {stream: true, messages: [][]byte{part(empty), part(empty)}},
		"cut off":             {messages: [][]byte{answer(func(*Result) {})[:20]}},
		"something follows":   {messages: [][]byte{append(answer(func(*Result) {}), 0)}},
		"unknown code":        {messages: [][]byte{answer(func(r *Result) { r.Code = 200 })}},
		"another message":     {messages: [][]byte{{byte(helloKind), '{', '}'}}},
		"unknown message":     {messages: [][]byte{{99}}},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := hostile(t, func(r *rogue) {
				r.requests()
				for _, msg := range test.messages {
					r.write(msg)
				}
				r.read()
			})
			got, err := ask(c, test.stream, 5*time.Second)
			if name == "twice in a message" { // the first was an answer
				got, err = ask(c, false, time.Second)
			}
			if !errors.Is(err, ErrProtocol) {
				t.Errorf("got %+v, %v, want ErrProtocol", got, err)
			}
			if _, err := ask(c, false, time.Second); err == nil {
				t.Error("the connection is used on")
			}
		})
	}
}

func empty(r *Result) { r.Shapes[0][0], r.Sizes[0] = 0, 0 }

func TestWorkerCloses(t *testing.T) {
	c, _ := hostile(t, func(r *rogue) { r.requests() })
	if _, err := ask(c, false, 5*time.Second); err == nil || !strings.Contains(err.Error(), "closed the connection") {
		t.Errorf("got %v", err)
	}
}

func TestWorkerSendsDescriptors(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	c, _ := hostile(t, func(r *rogue) {
		r.requests()
		fd := int(out.Fd())
		_, _, err := r.conn.WriteMsgUnix(answer(func(*Result) {}), unix.UnixRights(fd, fd), nil)
		if err := errors.Join(err, out.Close()); err != nil {
			r.Error(err)
		}
		r.read()
	})
	if result, err := ask(c, false, 10*time.Second); err != nil || result.Code != OK {
		t.Errorf("got %+v, %v", result, err)
	}
	if err := in.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a descriptor stays open: %v", err)
	}
}

func TestWorkerNeverAnswers(t *testing.T) {
	c, _ := hostile(t, func(r *rogue) {
		for r.read() != nil {
		}
	})
	// Those that wait beside it are freed too, the one that reads and others.
	others := make(chan error, 2)
	for slot := range 2 {
		go func() {
			others <- c.Run([]Request{{ID: uint64(slot) + 100, Slot: slot, Shapes: []tensor.Shape{{1}}}}, make([]Result, 1), time.Minute, nil)
		}()
	}
	if _, err := ask(c, false, 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want a passed deadline", err)
	}
	for range 2 {
		select {
		case err := <-others:
			if err == nil {
				t.Error("a run without an answer succeeded")
			}
		case <-time.After(5 * time.Second):
			t.Fatal("a run beside it waits on")
		}
	}
	if _, err := c.Statistics(time.Second); err == nil {
		t.Error("the connection is used on")
	}
}

// The deadline of an answer that came in time passes while no run waits: the next
// run is written all the same.
func TestWriteAfterAPassedDeadline(t *testing.T) {
	c, _ := hostile(t, func(r *rogue) {
		for range 2 {
			r.requests()
			r.write(answer(func(*Result) {}))
		}
		r.read()
	})
	if _, err := ask(c, false, 200*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	time.Sleep(250 * time.Millisecond)
	// As a run that begins while another waits longer does not move the deadline.
	err := c.write(func(b []byte) []byte {
		return appendRun(b, []Request{{ID: 8, Slot: 1, Shapes: []tensor.Shape{{1}}}})
	}, nil, time.Now().Add(time.Second))
	if err != nil {
		t.Errorf("got %v", err)
	}
}

// Requests that do not fit into one message are refused, and the worker is not
// disturbed.
func TestTooLongRun(t *testing.T) {
	c, _ := hostile(t, func(r *rogue) {
		r.requests()
		r.write(answer(func(*Result) {}))
		r.read()
	})
	shapes := make([]tensor.Shape, MaxMessage/8)
	err := c.Run([]Request{{ID: 1, Slot: 1, Shapes: shapes}}, make([]Result, 1), time.Second, nil)
	if !errors.Is(err, ErrTooLong) {
		t.Errorf("got %v", err)
	}
	if _, err := ask(c, false, time.Second); err != nil {
		t.Errorf("the next run: %v", err)
	}
}

// A worker that answers in parts has not hung because it has no time for figures.
func TestFiguresWaitForParts(t *testing.T) {
	c, _ := hostile(t, func(r *rogue) {
		r.requests()
		for at := 64; at < 64*6; at += 64 {
			time.Sleep(100 * time.Millisecond)
			r.write(answer(func(a *Result) { a.Code, a.Offsets[0] = Partial, at }))
		}
		r.write(answer(func(a *Result) { a.Offsets[0] = 64 * 6 }))
		r.read()
		msg, _ := encode(figuresKind, Statistics{Runs: 1})
		r.write(msg)
		r.read()
	})
	figures := make(chan error, 1)
	if _, err := func() (Result, error) {
		go func() {
			_, err := c.Statistics(400 * time.Millisecond) // less than all parts take
			figures <- err
		}()
		return ask(c, true, 400*time.Millisecond)
	}(); err != nil {
		t.Errorf("the run: %v", err)
	}
	if err := <-figures; err != nil {
		t.Errorf("the figures: %v", err)
	}
}

// RunBytes says what a message has.
func TestRunBytes(t *testing.T) {
	requests := []Request{{ID: 1, Shapes: []tensor.Shape{{1, 2}, {}}, Wanted: []int{1, 0}}, {ID: 2, Shapes: []tensor.Shape{{3}}}}
	if got, want := RunBytes(requests), len(appendRun(nil, requests)); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}

// A worker that sends without end fills the socket, not the daemon: nobody
// reads what nobody awaits, and what is read has to be asked for.
func TestWorkerFloods(t *testing.T) {
	flooded := make(chan int, 1)
	c, _ := hostile(t, func(r *rogue) {
		_ = r.conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		sent := 0
		for ; ; sent++ {
			msg, _ := encode(figuresKind, Statistics{Runs: int64(sent)})
			if _, err := r.conn.Write(msg); err != nil {
				break
			}
		}
		flooded <- sent
		r.read()
	})
	if sent := <-flooded; sent > 100_000 {
		t.Errorf("the daemon took %d messages that it did not ask for", sent)
	}
	if _, err := ask(c, false, time.Second); !errors.Is(err, ErrProtocol) {
		t.Errorf("got %v, want ErrProtocol", err)
	}
}

// A stream's parts end with its slot.
func TestWorkerFloodsWithParts(t *testing.T) {
	parts := 0
	c, _ := hostile(t, func(r *rogue) {
		r.requests()
		for at := 0; at < 1<<20; at += Align {
			r.write(answer(func(p *Result) { p.Code, p.Offsets[0] = Partial, at }))
		}
	})
	err := c.Run([]Request{{ID: 7, Slot: 2, Stream: true, Shapes: []tensor.Shape{{1}}}}, make([]Result, 1), time.Second, func(int, *Result) { parts++ })
	if !errors.Is(err, ErrProtocol) || parts > 8192/Align {
		t.Errorf("got %v after %d parts, want ErrProtocol after %d", err, parts, 8192/Align)
	}
}

func TestHostileMetadata(t *testing.T) {
	for name, change := range map[string]func(*Metadata){
		"no outputs":       func(m *Metadata) { m.Outputs = nil },
		"too many inputs":  func(m *Metadata) { m.Inputs = make([]tensor.Spec, MaxTensors+1) },
		"unknown type":     func(m *Metadata) { m.Outputs = []tensor.Spec{{Type: 200}} },
		"no type":          func(m *Metadata) { m.Outputs = []tensor.Spec{{}} },
		"too many axes":    func(m *Metadata) { m.Outputs = []tensor.Spec{{Type: tensor.Bool, Shape: make(tensor.Shape, 99)}} },
		"negative axis":    func(m *Metadata) { m.Outputs = []tensor.Spec{{Type: tensor.Bool, Shape: tensor.Shape{-2}}} },
		"long name":        func(m *Metadata) { m.Engine = strings.Repeat("x", MaxText+1) },
		"too many at once": func(m *Metadata) { m.Parallel = 1 << 40 },
		"negative at once": func(m *Metadata) { m.Parallel = -1 },
	} {
		meta := bytesModel()
		change(&meta)
		if _, _, err := tryHostile(t, meta, func(*rogue) {}); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: got %v, want ErrProtocol", name, err)
		}
	}
}

// A worker that connects and hangs up without end is given up.
func TestWorkerFloodsWithConnections(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"}); err == nil {
				_ = conn.Close()
			}
		}
	}()
	if _, err := l.Accept(t.Context(), func(int) bool { return true }); !errors.Is(err, ErrProtocol) {
		t.Errorf("got %v, want ErrProtocol", err)
	}
	_ = l.Close()
	cancel()
	<-ended
}

// accept runs Accept against a worker that a test plays.
func accept(t *testing.T, owned func(int) bool, play func(r *rogue)) error {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"})
		if err != nil {
			return
		}
		defer conn.Close()
		play(&rogue{t, conn})
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = l.Accept(ctx, owned)
	return err
}

func TestHello(t *testing.T) {
	own := func(pid int) bool { return pid == os.Getpid() }
	for name, test := range map[string]struct {
		owned func(int) bool
		play  func(r *rogue)
		want  error
	}{
		"an old worker": {own, func(r *rogue) {
			r.control(helloKind, helloMessage{Versions: []int{1}})
			var welcome welcomeMessage
			if err := decode(r.read(), welcomeKind, &welcome); err != nil || !strings.Contains(welcome.Error, "install the pack of this release") {
				t.Errorf("got %+v, %v", welcome, err)
			}
		}, ErrProtocol},
		"a stranger":     {func(int) bool { return false }, func(r *rogue) { r.read() }, context.DeadlineExceeded},
		"no hello":       {own, func(r *rogue) { r.read() }, context.DeadlineExceeded},
		"another word":   {own, func(r *rogue) { r.write([]byte("\x02{}")); r.read() }, ErrProtocol},
		"gone at once":   {own, func(*rogue) {}, context.DeadlineExceeded},
		"no JSON":        {own, func(r *rogue) { r.write([]byte("\x01{")); r.read() }, ErrProtocol},
		"many versions":  {own, func(r *rogue) { r.control(helloKind, helloMessage{Versions: make([]int, 5000)}); r.read() }, ErrProtocol},
		"runs at hello":  {own, func(r *rogue) { r.write(answer(func(*Result) {})); r.read() }, ErrProtocol},
		"an empty hello": {own, func(r *rogue) { r.write([]byte("\x01")); r.read() }, ErrProtocol},
	} {
		if err := accept(t, test.owned, test.play); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}
