package worker_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/engine/enginetest"
	"oscine.dev/oscine/internal/serve/servetest"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// The test program is the worker too.
func TestMain(m *testing.M) { servetest.Main(m) }

// rig is a worker process and the daemon's end of its connection.
type rig struct {
	*testing.T
	worker core.Worker
	load   channel.Load
	conn   *channel.Conn
	region *channel.Region
	ids    atomic.Uint64
}

func startWorker(t *testing.T, kind string) *rig {
	t.Helper()
	starter := servetest.Engine(t, kind)
	starter.Options = map[string]string{"prefix": "t"}
	w, err := starter.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = w.Kill()
		_ = w.Wait()
	})
	return &rig{T: t, worker: w, load: w.Load()}
}

// connect takes the worker's connection and loads its model.
func (r *rig) connect() error {
	r.Helper()
	l, err := channel.Listen(r.worker.Socket())
	if err != nil {
		r.Fatal(err)
	}
	defer l.Close()
	conn, err := l.Accept(r.Context(), r.worker.Owns)
	if err != nil {
		r.Fatal(err)
	}
	if err := conn.Load(r.Context(), r.load); err != nil {
		return errors.Join(err, conn.Close())
	}
	r.conn = conn
	if r.region == nil {
		if r.region, err = channel.NewRegion(channel.Size{Slots: 8, SlotBytes: 64 << 10, WarmSlots: 2, WarmBytes: 4096}); err != nil {
			r.Fatal(err)
		}
	}
	if err := conn.Share(r.region); err != nil {
		r.Fatal(err)
	}
	return nil
}

func serving(t *testing.T, kind string) *rig {
	t.Helper()
	r := startWorker(t, kind)
	if err := r.connect(); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) request(slot int, shape tensor.Shape, data []byte) channel.Request {
	copy(r.region.Slot(slot), data)
	return channel.Request{ID: r.ids.Add(1), Slot: slot, Shapes: []tensor.Shape{shape}, Sizes: []int{len(data)}}
}

// one runs one request and returns its result with a copy of the first output.
func (r *rig) one(q channel.Request) (channel.Result, []byte) {
	r.Helper()
	results := make([]channel.Result, 1)
	if err := r.conn.Run([]channel.Request{q}, results, 5*time.Second, nil); err != nil {
		r.Fatal(err)
	}
	return results[0], r.output(&results[0])
}

func (r *rig) output(result *channel.Result) []byte {
	if len(result.Offsets) == 0 {
		return nil
	}
	return bytes.Clone(r.region.Slot(result.Slot)[result.Offsets[0]:][:result.Sizes[0]])
}

func int32s(n ...int32) (data []byte) {
	for _, v := range n {
		data = binary.LittleEndian.AppendUint32(data, uint32(v))
	}
	return data
}

func floats(v ...float32) (data []byte) {
	for _, f := range v {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(f))
	}
	return data
}

func TestJoinedRequests(t *testing.T) {
	r := serving(t, "add")
	var requests []channel.Request
	for slot := range 4 {
		f := float32(slot)
		requests = append(requests, r.request(slot, tensor.Shape{1, 4}, floats(f, f, f, f)))
	}
	results := make([]channel.Result, len(requests))
	if err := r.conn.Run(requests, results, time.Second, nil); err != nil {
		t.Fatal(err)
	}
	for i := range results {
		f := float32(i) + 1
		if got := r.output(&results[i]); results[i].Code != channel.OK || !bytes.Equal(got, floats(f, f, f, f)) {
			t.Errorf("request %d: got %+v, %x", i, results[i], got)
		}
	}
	s, err := r.conn.Statistics(time.Second)
	if err != nil || s.Runs != 1 || s.Requests != 4 || s.Failed != 0 || s.MemoryBytes == 0 || s.LoadNS == 0 {
		t.Errorf("statistics: got %+v, %v, want 1 run of 4 requests", s, err)
	}
	// One that spoils the batch is answered alone, and so are the others.
	copy(r.region.Slot(2), floats(666))
	for i := range requests {
		requests[i].ID = r.ids.Add(1)
	}
	if err := r.conn.Run(requests, results, time.Second, nil); err != nil {
		t.Fatal(err)
	}
	for i := range results {
		if want := map[bool]channel.Code{true: channel.Invalid, false: channel.OK}[i == 2]; results[i].Code != want {
			t.Errorf("request %d: got code %d, want %d (%s)", i, results[i].Code, want, results[i].Err)
		}
	}
}

func TestByteStrings(t *testing.T) {
	r := serving(t, "upper")
	text := tensor.AppendString(tensor.AppendString(nil, []byte("one")), []byte("žluť"))
	result, data := r.one(r.request(0, tensor.Shape{2}, text))
	var got []string
	err := tensor.Strings(data, int(result.Shapes[0][0]), func(s []byte) error {
		got = append(got, string(s))
		return nil
	})
	if want := "ONE ŽLUŤ ONE ŽLUŤ"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("got %q, %v, want %s", got, err, want)
	}
	// A length that lies is the request's fault, not the worker's end.
	if result, _ := r.one(r.request(0, tensor.Shape{1}, []byte{200, 0, 0, 0, 'x'})); result.Code != channel.Invalid {
		t.Errorf("a length beyond the tensor: got %+v", result)
	}
	if result, _ := r.one(r.request(0, tensor.Shape{3}, []byte{1, 0, 0})); result.Code != channel.Invalid {
		t.Errorf("fewer bytes than lengths: got %+v", result)
	}
}

// Outputs whose size nobody knows before take what the slot has.
func TestUnknownOutputSize(t *testing.T) {
	r := serving(t, "grow")
	for _, n := range []int32{0, 1, 60_000} {
		if result, data := r.one(r.request(1, tensor.Shape{1}, int32s(n))); result.Code != channel.OK || len(data) != int(n) {
			t.Errorf("%d bytes: got %d, %+v", n, len(data), result)
		}
	}
	if result, _ := r.one(r.request(1, tensor.Shape{1}, int32s(70_000))); result.Code != channel.Invalid || !strings.Contains(result.Err, "65536 bytes that the model's spec.maxRequest allows, output \"bytes\" alone 70000") {
		t.Errorf("more than a slot: got %+v", result)
	}
}

func TestStream(t *testing.T) {
	r := serving(t, "count")
	q := r.request(3, tensor.Shape{1}, int32s(4))
	q.Stream = true
	results := make([]channel.Result, 1)
	var tokens []string
	err := r.conn.Run([]channel.Request{q}, results, time.Second, func(_ int, part *channel.Result) {
		_ = tensor.Strings(r.output(part), 1, func(s []byte) error {
			tokens = append(tokens, string(s))
			return nil
		})
	})
	if got := strings.Join(tokens, " "); err != nil || got != "t0 t1 t2 t3" || results[0].Code != channel.OK {
		t.Errorf("got %q, %+v, %v", got, results[0], err)
	}
	// Without a stream the answer comes as a whole.
	if result, data := r.one(r.request(3, tensor.Shape{1}, int32s(3))); !bytes.Equal(data, tensor.AppendString(nil, []byte("t0t1t2"))) {
		t.Errorf("as a whole: got %q, %+v", data, result)
	}
}

// A worker that streams one answer says what it has counted meanwhile.
func TestFiguresDuringStream(t *testing.T) {
	r := serving(t, "count")
	q := r.request(0, tensor.Shape{1}, int32s(100_000))
	q.Stream = true
	begun, ended := make(chan bool, 1), make(chan error, 1)
	go func() {
		ended <- r.conn.Run([]channel.Request{q}, make([]channel.Result, 1), 5*time.Second, func(int, *channel.Result) {
			select {
			case begun <- true:
			default:
			}
		})
	}()
	<-begun
	defer time.AfterFunc(2*time.Second, func() { r.region.Cancel(q.Slot, q.ID) }).Stop()
	if _, err := r.conn.Statistics(5 * time.Second); err != nil {
		t.Errorf("figures: %v", err)
	}
	if len(ended) > 0 {
		t.Error("the figures came behind the stream")
	}
	r.region.Cancel(q.Slot, q.ID)
	if err := <-ended; err != nil {
		t.Errorf("the stream: %v", err)
	}
}

func TestCancelStream(t *testing.T) {
	r := serving(t, "count")
	q := r.request(0, tensor.Shape{1}, int32s(100_000))
	q.Stream = true
	results, parts := make([]channel.Result, 1), 0
	begin := time.Now()
	err := r.conn.Run([]channel.Request{q}, results, 5*time.Second, func(int, *channel.Result) {
		if parts++; parts == 3 {
			r.region.Cancel(q.Slot, q.ID)
		}
	})
	if err != nil || results[0].Code != channel.Cancelled || time.Since(begin) > 3*time.Second {
		t.Errorf("got %+v, %v after %v and %d parts, want a cancelled request", results[0], err, time.Since(begin), parts)
	}
	if result, _ := r.one(r.request(0, tensor.Shape{1}, int32s(1))); result.Code != channel.OK {
		t.Errorf("after a cancelled request: got %+v", result)
	}
}

// Several runs are under way at once, each is answered when it is done, and one
// is cancelled while others go on.
func TestSeveralRuns(t *testing.T) {
	r := serving(t, "sleep")
	ms := []int32{60_000, 300, 20, 1}
	var wg sync.WaitGroup
	var order []int
	var mu sync.Mutex
	long := r.request(0, tensor.Shape{1}, int32s(ms[0]))
	for slot, n := range ms {
		q := long
		if slot > 0 {
			q = r.request(slot, tensor.Shape{1}, int32s(n))
		}
		wg.Go(func() {
			result, data := r.one(q)
			mu.Lock()
			defer mu.Unlock()
			order = append(order, slot)
			if want := channel.OK; slot > 0 && (result.Code != want || !bytes.Equal(data, int32s(n))) {
				t.Errorf("run %d: got %+v, %x", slot, result, data)
			}
			if slot == 0 && result.Code != channel.Cancelled {
				t.Errorf("the run that was cancelled: got %+v", result)
			}
			if slot == 1 {
				r.region.Cancel(long.Slot, long.ID)
			}
		})
	}
	wg.Wait()
	if len(order) != 4 || order[2] != 1 || order[3] != 0 {
		t.Errorf("answered in the order %v, want those that take least first", order)
	}
}

func TestDeadline(t *testing.T) {
	r := serving(t, "sleep")
	q := r.request(0, tensor.Shape{1}, int32s(60_000))
	q.Within = 30 * time.Millisecond
	if result, _ := r.one(q); result.Code != channel.Expired {
		t.Errorf("got %+v, want an expired request", result)
	}
	q = r.request(0, tensor.Shape{1}, int32s(0))
	q.Within = -time.Second
	if result, _ := r.one(q); result.Code != channel.Expired {
		t.Errorf("too late from the start: got %+v", result)
	}
}

// The next daemon gets the model that the worker has loaded; a daemon that
// asks for another is refused, and one that unloads may load it.
func TestNextDaemon(t *testing.T) {
	r := serving(t, "add")
	pid := r.conn.PID()
	if err := r.conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.connect(); err != nil {
		t.Fatal(err)
	}
	if r.conn.PID() != pid {
		t.Errorf("process %d answers, before %d", r.conn.PID(), pid)
	}
	if result, data := r.one(r.request(5, tensor.Shape{1, 4}, floats(1, 2, 3, 4))); !bytes.Equal(data, floats(2, 3, 4, 5)) {
		t.Errorf("got %+v, %x", result, data)
	}
	if err := r.conn.Unload(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.load.Path, []byte(enginetest.Magic+"sleep\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.conn.Load(context.Background(), r.load); err != nil || r.conn.Metadata().Runs() != 4 {
		t.Fatalf("load another: %v, %+v", err, r.conn.Metadata())
	}
	if result, _ := r.one(r.request(5, tensor.Shape{1}, int32s(1))); result.Code != channel.OK {
		t.Errorf("got %+v", result)
	}
}

// A run that the daemon left behind does not keep the next one waiting.
func TestDaemonLeavesRunBehind(t *testing.T) {
	r := serving(t, "sleep")
	q := r.request(0, tensor.Shape{1}, int32s(60_000))
	ended := make(chan error)
	go func() { ended <- r.conn.Run([]channel.Request{q}, make([]channel.Result, 1), time.Minute, nil) }()
	if result, _ := r.one(r.request(1, tensor.Shape{1}, int32s(10))); result.Code != channel.OK {
		t.Errorf("beside it: got %+v", result)
	}
	if err := r.conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("a run without an answer succeeded")
	}
	begin := time.Now()
	if err := r.connect(); err != nil || time.Since(begin) > 20*time.Second {
		t.Errorf("the next daemon: %v after %v", err, time.Since(begin))
	}
}

func TestRefusal(t *testing.T) {
	for kind, want := range map[string]string{
		"unknown": "not a model of the engine for tests",
		"once":    "ran the model once and not a second time",
		"add":     "option deterministic=maybe: choose true or false",
		"upper":   "option suffix=a: there is no such option of this engine; there are batch, deterministic, prefix",
	} {
		r := startWorker(t, kind)
		if kind == "add" {
			r.load.Options["deterministic"] = "maybe"
		}
		if kind == "upper" {
			r.load.Options["suffix"] = "a"
		}
		err := r.connect()
		var refused *channel.ModelError
		if !errors.As(err, &refused) || !strings.Contains(refused.Text, want) {
			t.Errorf("%s: got %v, want %s", kind, err, want)
		}
		var ended *exec.ExitError
		if err := r.worker.Wait(); !errors.As(err, &ended) || ended.ExitCode() != worker.ExitRefused {
			t.Errorf("%s: the program ended with %v, want status %d", kind, err, worker.ExitRefused)
		}
	}
}

// An engine that puts too little fails its requests, and nothing else.
func TestTooFewOutputs(t *testing.T) {
	r := serving(t, "short")
	for range 2 {
		if result, _ := r.one(r.request(0, tensor.Shape{1}, int32s(1))); result.Code != channel.Failed || !strings.Contains(result.Err, "0 outputs, 1 are wanted") {
			t.Errorf("got %+v", result)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"--socket"}, {"--socket", "/s", "more"}, {"--unknown"}} {
		if got := worker.Main("test", new(enginetest.Engine), args, io.Discard); got != worker.ExitUsage {
			t.Errorf("%v: got status %d, want %d", args, got, worker.ExitUsage)
		}
	}
}
