package core

import (
	"context"
	"errors"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

func rowsOf(n int64) *channel.Metadata {
	one := []tensor.Spec{{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{-1, n}}}
	return &channel.Metadata{Engine: "test", Inputs: one, Outputs: one}
}

func TestSizes(t *testing.T) {
	for name, test := range map[string]struct {
		row, max int64
		want     int // bytes of a slot; 0: refused
	}{
		"usual":                  {784, 0, DefaultMaxRequest},
		"a setting":              {784, 1 << 20, 1 << 20},
		"rounded to pages":       {784, 10_000, 12288},
		"large fixed shapes":     {40 << 20, 0, 320 << 20},
		"a setting that is less": {40 << 20, 16 << 20, 0},
		"more than there is":     {200 << 20, 0, 0},
	} {
		size, err := sizes(rowsOf(test.row), test.max)
		if size.SlotBytes != test.want || (err == nil) != (test.want > 0) {
			t.Errorf("%s: got %+v, %v", name, size, err)
		}
		if err != nil && !errors.As(err, new(*channel.ModelError)) {
			t.Errorf("%s: the worker would be started again: %v", name, err)
		}
	}
}

// The bytes of all requests at work are bounded, whatever the number of slots.
func TestBytesAtWorkAreBounded(t *testing.T) {
	mem, err := newMemory(rowsOf(4), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.region.Close()
	m := &model{Model: Model{Name: "m"}}
	job := func(patience time.Duration) *job {
		return &job{ctx: t.Context(), rank: rank{expires: time.Now().Add(patience)}}
	}
	mem.grew(atWork / 4)
	first, bytes, err := m.takeSlot(mem, job(time.Hour), atWork/4)
	if err != nil || bytes != atWork/2 {
		t.Fatalf("%d bytes, %v", bytes, err)
	}
	_, more, err := m.takeSlot(mem, job(time.Hour), atWork/4)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.takeSlot(mem, job(time.Millisecond), 1); !errors.Is(err, ErrExpired) {
		t.Errorf("without room: %v", err)
	}
	mem.release(first, 0, bytes)
	mem.release(first+1, 0, more)
	if _, bytes, err = m.takeSlot(mem, job(time.Hour), 2*atWork); err != nil || bytes != atWork {
		t.Errorf("one that needs all: %d bytes, %v", bytes, err)
	}
	mem.room.Release(bytes)
	for range 40 {
		mem.grew(0)
	}
	if left := mem.grows.Load(); left > atWork/64 {
		t.Errorf("large outputs are still expected: %d bytes", left)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if !mem.reserve(gone, mem.all, time.Now()) || mem.reserve(gone, 1, time.Now().Add(time.Hour)) {
		t.Error("a client that left waits for room")
	}
}

// A slot stays taken as long as a worker that is being killed may write into it.
func TestSlotOfAFailedRunIsHeld(t *testing.T) {
	mem, err := newMemory(rowsOf(4), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	m := &model{done: make(chan struct{})}
	slot, ok := mem.tryTake()
	if !ok || !mem.room.TryAcquire(1) {
		t.Fatal("no slot is free")
	}
	worker := &life{over: make(chan struct{})}
	j := &job{writer: worker}
	j.request.Slot = slot
	m.release(mem, j, 0, 1)
	for range slotCount - 1 {
		if again, ok := mem.tryTake(); !ok || again == slot {
			t.Fatalf("got slot %d, %v", again, ok)
		}
	}
	close(worker.over)
	if again, ok := mem.take(t.Context(), 5*time.Second); !ok || again != slot {
		t.Errorf("after the worker's end: got slot %d, %v", again, ok)
	}
}
