package core_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/servetest"
	"oscine.dev/oscine/internal/tensor"
)

// sharedBytes is what exists of the shared memory that this process holds.
func sharedBytes(t *testing.T) (total int64) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		var st syscall.Stat_t
		if name, err := os.Readlink(file); err == nil && strings.HasPrefix(name, "/memfd:oscine-tensors") && syscall.Stat(file, &st) == nil {
			total += st.Blocks * 512
		}
	}
	return total
}

// What requests and a worker wrote into shared memory goes when the worker
// goes, and what large requests wrote goes with them.
func TestSharedMemoryIsGivenBack(t *testing.T) {
	r := servetest.New(t)
	r.Ready("m")
	if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, 1); err != nil {
		t.Fatal(err)
	}
	warm := sharedBytes(t)
	rows := int64(1500)
	in := []core.Input{{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{rows, 4}, Data: make(core.Bytes, 16*rows)}}
	for range 10 {
		answer, err := r.Registry.Infer(t.Context(), core.Request{Model: "m", Inputs: in})
		if err != nil {
			t.Fatal(err)
		}
		answer.Free()
	}
	if got := sharedBytes(t); got > warm {
		t.Errorf("%d bytes are left of large requests, %d were there before", got, warm)
	}
	if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, servetest.Poison); err == nil {
		t.Fatal("the worker was to die")
	}
	if err := r.Registry.WaitReady(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if got := sharedBytes(t); got > warm {
		t.Errorf("%d bytes are left of the worker that ended, %d were there before", got, warm)
	}
}

// hasty is an Urgency that fails in the worst way.
type hasty struct {
	once sync.Once
}

func (h *hasty) Raise([]int, time.Duration) error {
	h.once.Do(func() { panic("no urgency") })
	return nil
}

func (h *hasty) Lower([]int) error { return nil }

// A request that panics on its way takes neither the queue nor its slot along.
func TestPanicFreesTheQueue(t *testing.T) {
	r := servetest.New(t)
	r.Serve(core.Model{Name: "m", Objective: time.Second, Instances: []core.Instance{{Urgency: &hasty{}}}})
	r.Wait("m")
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the first request was to panic")
			}
		}()
		_, _ = r.Ask(t.Context(), core.Request{Model: "m"}, 1)
	}()
	for range core.SlotCount + 1 {
		if a, err := r.Ask(t.Context(), core.Request{Model: "m"}, 2); err != nil || a.Doubled != 4 {
			t.Fatalf("after it: got %+v, %v", a, err)
		}
	}
}

func TestWork(t *testing.T) {
	r := servetest.New(t)
	r.Ready("m")
	if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, 2); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if w, err := r.Registry.Work("m"); err != nil {
			t.Fatal(err)
		} else if w.Requests > 0 {
			if w.Requests != 1 || w.Runs != 1 || w.MemoryBytes == 0 {
				t.Errorf("got %+v, want one run of one request", w)
			}
			return
		}
	}
	t.Error("the worker never told what it has done")
}

// Requests are as large as they are, up to the model's setting, which the errors
// name.
func TestLargeRequests(t *testing.T) {
	r := servetest.New(t)
	r.Ready("m")
	ask := func(model string, rows int64) error {
		in := []core.Input{{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{rows, 4}, Data: make(core.Bytes, 16*rows)}}
		answer, err := r.Registry.Infer(t.Context(), core.Request{Model: model, Inputs: in})
		if err == nil && answer.Outputs[0].Shape[0] != rows {
			t.Errorf("%d rows came back of %d", answer.Outputs[0].Shape[0], rows)
		}
		return err
	}
	for _, rows := range []int64{65, 1000, 2049, 1 << 20} {
		if err := ask("m", rows); err != nil {
			t.Errorf("%d rows: %v", rows, err)
		}
	}
	r.Serve(core.Model{Name: "small", MaxRequest: 64 << 10})
	r.Wait("small")
	if max := r.Registry.MaxRequest("small", ""); max != 64<<10 {
		t.Errorf("it takes %d bytes", max)
	}
	for rows, want := range map[int64]string{1500: "", 3000: "spec.maxRequest", 5000: "spec.maxRequest"} { // 3000: only the inputs fit
		if err := ask("small", rows); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%d rows: %v", rows, err)
		}
	}
}

// Answers count until their clients have read them.
func TestAnswersAreBounded(t *testing.T) {
	r := servetest.New(t)
	r.Ready("m")
	r.Registry.SetAnswers(30) // one has 20 bytes
	q := core.Request{Model: "m", Inputs: servetest.Row(1)}
	first, err := r.Registry.Infer(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := r.Registry.Infer(ctx, q); !errors.Is(err, core.ErrOverloaded) {
		t.Errorf("beside an answer that nobody has read: got %v", err)
	}
	first.Free()
	for range 3 {
		next, err := r.Registry.Infer(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		next.Free()
	}
	r.Registry.SetAnswers(10) // one that is larger than all may be is taken alone
	if next, err := r.Registry.Infer(t.Context(), q); err != nil {
		t.Error(err)
	} else {
		next.Free()
	}
}
