package channel

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"oscine.dev/oscine/internal/tensor"
)

// echo is an engine whose output is its input.
type echo struct{ meta Metadata }

func newEcho() *echo {
	spec := []tensor.Spec{{Name: "x", Type: tensor.Uint8, Shape: tensor.Shape{-1}}}
	return &echo{Metadata{Engine: "echo 1", Inputs: spec, Outputs: spec}}
}

func (e *echo) Metadata() *Metadata { return &e.meta }

func (e *echo) Infer(calls []Call) {
	for _, c := range calls {
		n := int(c.Request.Shapes[0][0])
		copy(c.Memory[c.End:], c.Memory[:n])
		c.Result.Shapes = append(c.Result.Shapes, c.Request.Shapes[0])
		c.Result.Offsets = append(c.Result.Offsets, c.End)
	}
}

func listen(t *testing.T) (*Listener, string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	return l, socket
}

func dialEcho(t *testing.T, socket string) (*Conn, *Region) {
	t.Helper()
	c, err := Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	region, err := NewRegion(4, 8192)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Share(region); err != nil {
		t.Fatal(err)
	}
	return c, region
}

func runEcho(t *testing.T, c *Conn, region *Region, text string) {
	t.Helper()
	copy(region.Slot(2), text)
	results, err := c.Run([]Request{{Slot: 2, Shapes: []tensor.Shape{{int64(len(text))}}}, {Slot: 9}}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(region.Slot(2)[results[0].Offsets[0]:][:len(text)]); got != text {
		t.Errorf("got %q, want %q", got, text)
	}
	if !strings.Contains(results[1].Err, "slot 9 of 4") {
		t.Errorf("a slot outside the region: got %q", results[1].Err)
	}
}

// A daemon that went away without a word and its successor both get answers.
func TestReconnect(t *testing.T) {
	l, socket := listen(t)
	go func() { _ = l.Serve(newEcho()) }() // ends with the process
	first, firstRegion := dialEcho(t, socket)
	runEcho(t, first, firstRegion, "hello")
	second, secondRegion := dialEcho(t, socket)
	runEcho(t, second, secondRegion, "hello again")
	if _, err := first.Run([]Request{{Shapes: []tensor.Shape{{1}}}}, time.Second); err == nil {
		t.Error("the connection that was replaced still answers")
	}
	runEcho(t, second, secondRegion, "and again")
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	third, thirdRegion := dialEcho(t, socket)
	runEcho(t, third, thirdRegion, "once more")
}

func TestWorkerChecksRequests(t *testing.T) {
	l, socket := listen(t)
	go func() { _ = l.Serve(newEcho()) }()
	c, _ := dialEcho(t, socket)
	for name, test := range map[string]struct {
		request Request
		want    string
	}{
		"no input":         {Request{}, "0 inputs, the model has 1"},
		"two dimensions":   {Request{Shapes: []tensor.Shape{{1, 1}}}, "want [-1]"},
		"more than a slot": {Request{Shapes: []tensor.Shape{{8193}}}, "a slot has 8192"},
		"output 7":         {Request{Shapes: []tensor.Shape{{1}}, Wanted: []int{0}}, ""},
	} {
		results, err := c.Run([]Request{test.request}, time.Second)
		if err != nil || !strings.Contains(results[0].Err, test.want) {
			t.Errorf("%s: got %+v, %v; want %s", name, results, err, test.want)
		}
	}
}

func TestRefuse(t *testing.T) {
	l, socket := listen(t)
	refused := make(chan error, 1)
	go func() { refused <- l.Refuse("no model") }()
	_, err := Dial(t.Context(), socket)
	var model *ModelError
	if !errors.As(err, &model) || model.Text != "no model" {
		t.Errorf("got %v", err)
	}
	if err := <-refused; err != nil {
		t.Error(err)
	}
}

// hostile answers the hello with the metadata and each run with an answer of
// the test's.
func hostile(t *testing.T, socket string, answer func(sequence uint32) []byte) {
	t.Helper()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		buf := make([]byte, MaxMessage)
		for i := uint32(0); ; i++ {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			var msg []byte
			switch kind(buf[0]) {
			case helloKind:
				msg, err = encodeControl(modelKind, modelMessage{Version: Version, Metadata: newEcho().meta})
			case regionKind:
				msg, err = encodeControl(mappedKind, mappedMessage{})
			default:
				var sequence uint32
				sequence, _, err = decodeRun(buf[:n], nil)
				msg = answer(sequence)
			}
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := conn.Write(msg); err != nil {
				return
			}
		}
	}()
}

func TestDaemonDistrustsWorker(t *testing.T) {
	result := func(shape tensor.Shape, offset int) []Result {
		return []Result{{Shapes: []tensor.Shape{shape}, Offsets: []int{offset}}}
	}
	for name, answer := range map[string]func(uint32) []byte{
		"outside the slot": func(s uint32) []byte { return appendDone(nil, s, result(tensor.Shape{100}, 8128)) },
		"far outside":      func(s uint32) []byte { return appendDone(nil, s, result(tensor.Shape{1}, 1<<29)) },
		"unaligned":        func(s uint32) []byte { return appendDone(nil, s, result(tensor.Shape{1}, 3)) },
		"huge shape":       func(s uint32) []byte { return appendDone(nil, s, result(tensor.Shape{1 << 20, 1 << 20, 1 << 20}, 0)) },
		"no outputs":       func(s uint32) []byte { return appendDone(nil, s, []Result{{}}) },
		"too many results": func(s uint32) []byte {
			return appendDone(nil, s, append(result(tensor.Shape{1}, 0), result(tensor.Shape{1}, 0)...))
		},
		"another's answer": func(s uint32) []byte { return appendDone(nil, s+1, result(tensor.Shape{1}, 0)) },
		"cut off":          func(s uint32) []byte { return appendDone(nil, s, result(tensor.Shape{1}, 0))[:12] },
		"another message":  func(uint32) []byte { return []byte("\x01{}") },
	} {
		socket := filepath.Join(t.TempDir(), "s")
		hostile(t, socket, answer)
		c, _ := dialEcho(t, socket)
		if _, err := c.Run([]Request{{Shapes: []tensor.Shape{{1}}}}, time.Second); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: got %v, want ErrProtocol", name, err)
		}
	}
}

func TestDialGivesUp(t *testing.T) {
	_, socket := listen(t) // never served: a model that takes forever to load
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, socket); err == nil {
		t.Error("connected to a worker that never answers")
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(appendRun(nil, 7, []Request{{Slot: 3, Shapes: []tensor.Shape{{1, 28}, {}}, Wanted: []int{1}}}))
	f.Add(appendDone(nil, 7, []Result{{Err: "no"}, {Shapes: []tensor.Shape{{2}}, Offsets: []int{64}}}))
	f.Fuzz(func(t *testing.T, msg []byte) {
		if sequence, requests, err := decodeRun(msg, nil); err == nil {
			_, again, err := decodeRun(appendRun(nil, sequence, requests), nil)
			if diff := cmp.Diff(requests, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
				t.Errorf("run: %v %s", err, diff)
			}
		}
		if sequence, results, err := decodeDone(msg, nil); err == nil {
			_, again, err := decodeDone(appendDone(nil, sequence, results), nil)
			if diff := cmp.Diff(results, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
				t.Errorf("done: %v %s", err, diff)
			}
		}
	})
}
