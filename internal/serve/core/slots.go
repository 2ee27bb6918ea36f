package core

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

// Sizes of a model's shared memory. Pages come into being when they are
// written, so each slot is as large as the largest request.
const (
	slotCount = 64
	warmBytes = 1 << 20         // of a free slot that stay, at most; what is beyond goes back to the system
	warmTotal = 4 << 20         // of all free slots, which count for the worker
	slotWait  = 5 * time.Second // bounds how long a request waits for a free slot
	// atWork bounds the bytes of all requests of a model that are at work, where
	// no single one needs more.
	atWork = 512 << 20
)

// Bounds of Model.MaxRequest.
const (
	DefaultMaxRequest = 256 << 20
	LeastMaxRequest   = 4 << 10
	MostMaxRequest    = channel.MaxSlotBytes
)

// memory hands out the slots of a region, the last used first, since its pages
// are warm and exist.
type memory struct {
	region *channel.Region
	tokens chan struct{}       // one for each free slot
	room   *semaphore.Weighted // bytes of the requests at work
	all    int64               // of room
	grows  atomic.Int64        // bytes of outputs that recent requests need
	mu     sync.Mutex
	free   []int
	stale  [slotCount]bool // slots in use that hold something of a worker that has ended
}

func newMemory(meta *channel.Metadata, maxRequest int64) (*memory, error) {
	size, err := sizes(meta, maxRequest)
	if err != nil {
		return nil, err
	}
	region, err := channel.NewRegion(size)
	if err != nil {
		return nil, err
	}
	m := &memory{region: region, tokens: make(chan struct{}, slotCount), all: max(atWork, int64(region.SlotBytes))}
	m.room = semaphore.NewWeighted(m.all)
	for i := range slotCount {
		m.free = append(m.free, slotCount-1-i)
		m.tokens <- struct{}{}
	}
	return m, nil
}

// sizes sizes the slots for requests of maxRequest bytes. Where that is 0, a model
// of large fixed shapes gets what it needs; else it is refused. What the smallest
// request needs stays warm.
func sizes(meta *channel.Metadata, maxRequest int64) (channel.Size, error) {
	least := 0
	for _, spec := range slices.Concat(meta.Inputs, meta.Outputs) {
		n, err := spec.LeastBytes(spec.Concrete(1, 1))
		if err != nil {
			n = tensor.MaxBytes
		}
		least += channel.Aligned(n)
	}
	total := int(maxRequest)
	if maxRequest == 0 {
		total = min(max(least, DefaultMaxRequest), MostMaxRequest)
	}
	if least > total {
		return channel.Size{}, &channel.ModelError{Text: fmt.Sprintf("the smallest request to the model has %d bytes of inputs and outputs, spec.maxRequest allows %d and %d at most", least, total, MostMaxRequest)}
	}
	size := channel.Size{Slots: slotCount, SlotBytes: (total + 4095) &^ 4095}
	size.WarmBytes = (min(least, warmBytes) + 4095) &^ 4095
	size.WarmSlots = min(slotCount, max(4, warmTotal/max(size.WarmBytes, 1)))
	return size, nil
}

// renew gives back what a worker that has ended left in free slots, and marks
// the others for when they are free.
func (m *memory) renew() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.stale {
		m.stale[i] = true
	}
	for _, slot := range m.free {
		m.stale[slot] = false
		m.region.Punch(slot)
	}
}

// tryTake returns a free slot if there is one.
func (m *memory) tryTake() (int, bool) {
	select {
	case <-m.tokens:
		return m.pop(), true
	default:
		return 0, false
	}
}

// take waits for a free slot until ctx or the time ends; then it reports false.
func (m *memory) take(ctx context.Context, patience time.Duration) (int, bool) {
	if slot, ok := m.tryTake(); ok {
		return slot, true
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-m.tokens:
		return m.pop(), true
	case <-ctx.Done():
	case <-timer.C:
	}
	return 0, false
}

// takeSlot takes a slot for a job with so many bytes of inputs, waiting no longer
// than slotWait, the client or the job's timeout. The bytes that it has counted
// are given back with the slot.
func (m *model) takeSlot(mem *memory, j *job, inputs int) (slot int, bytes int64, err error) {
	if m.crowd.Add(1) > maxCrowd {
		m.crowd.Add(-1)
		return 0, 0, m.overloaded(fmt.Sprintf("%d requests wait for it", maxCrowd))
	}
	defer m.crowd.Add(-1)
	end := time.Now().Add(slotWait)
	if !j.rank.expires.IsZero() && j.rank.expires.Before(end) {
		end = j.rank.expires
	}
	bytes = min(int64(inputs)+mem.grows.Load(), mem.all)
	if mem.reserve(j.ctx, bytes, end) {
		if slot, ok := mem.take(j.ctx, time.Until(end)); ok {
			return slot, bytes, nil
		}
		mem.room.Release(bytes)
	}
	if err := m.unwanted(j); err != nil {
		return 0, 0, err
	}
	return 0, 0, m.overloaded("the requests that it has at work leave no room")
}

// maxCrowd bounds the requests of a model that wait for a slot.
const maxCrowd = 1024

// pending is how many requests wait for a slot or for their run.
func (m *model) pending() int {
	m.queue.mu.Lock()
	defer m.queue.mu.Unlock()
	return len(m.queue.waiting) + int(m.crowd.Load())
}

// overloaded refuses a request, with the time that those before it will take.
func (m *model) overloaded(why string) error {
	before := m.pending()
	share := 1
	if m.joins() {
		share = channel.MaxRequests
	}
	runs := (before + share - 1) / share / m.capacity()
	after := time.Duration(m.usual.Load()) * time.Duration(max(runs, 1))
	return &overload{fmt.Errorf("%w: %s: %s", ErrOverloaded, m.Name, why), after}
}

// reserve counts bytes of a request, waiting until the end for those of others.
func (m *memory) reserve(ctx context.Context, bytes int64, end time.Time) bool {
	if m.room.TryAcquire(bytes) {
		return true
	}
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	return m.room.Acquire(ctx, bytes) == nil
}

// grew learns how many bytes of outputs requests need: the most of recent ones.
func (m *memory) grew(bytes int) {
	last, now := m.grows.Load(), int64(bytes)
	if now < last {
		now = last - (last-now)/8
	}
	if now != last {
		m.grows.Store(now)
	}
}

func (m *memory) pop() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	slot := m.free[len(m.free)-1]
	m.free = m.free[:len(m.free)-1]
	return slot
}

// release gives a job's slot back, once no worker can write into it any more.
func (m *model) release(mem *memory, j *job, used int, bytes int64) {
	slot, writer := j.request.Slot, j.writer
	j.writer = nil
	if writer == nil {
		mem.release(slot, used, bytes)
		return
	}
	go func() {
		select {
		case <-writer.over:
		case <-m.done: // its slots are used no more
		}
		mem.release(slot, used, bytes)
	}()
}

// release gives a slot back, of which used bytes may have been written, with the
// bytes that were counted for it.
func (m *memory) release(slot, used int, bytes int64) {
	m.mu.Lock()
	if m.stale[slot] {
		m.stale[slot] = false
		m.region.Punch(slot)
	} else {
		m.region.Trim(slot, used)
	}
	m.free = append(m.free, slot)
	m.mu.Unlock()
	m.room.Release(bytes)
	m.tokens <- struct{}{}
}
