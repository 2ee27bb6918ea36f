package core

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

// Sizes of a model's shared memory. Pages come into being when they are
// written, so slots may be generous.
const (
	slotCount    = 64
	minSlotBytes = 64 << 10
	maxSlotBytes = 64 << 20
	warmBytes    = 1 << 20         // of a free slot that stay, at most; what is beyond goes back to the system
	warmTotal    = 4 << 20         // of all free slots, which count for the worker
	slotWait     = 5 * time.Second // bounds how long a request waits for a free slot
)

// memory hands out the slots of a region, the last used first, since its pages
// are warm and exist.
type memory struct {
	region *channel.Region
	tokens chan struct{} // one for each free slot
	mu     sync.Mutex
	free   []int
	stale  [slotCount]bool // slots in use that hold something of a worker that has ended
}

func newMemory(meta *channel.Metadata) (*memory, error) {
	region, err := channel.NewRegion(sizes(meta))
	if err != nil {
		return nil, err
	}
	m := &memory{region: region, tokens: make(chan struct{}, slotCount)}
	for i := range slotCount {
		m.free = append(m.free, slotCount-1-i)
		m.tokens <- struct{}{}
	}
	return m, nil
}

// sizes sizes the slots: for 64 rows where only the first dimension is open,
// at most 64 MiB; the full 64 MiB where others are open too, or strings come. A
// model of fixed shapes that needs more gets what it needs. What a row needs
// stays warm.
func sizes(meta *channel.Metadata) channel.Size {
	rows, fixed, open := 0, 0, false
	for _, spec := range slices.Concat(meta.Inputs, meta.Outputs) {
		shape, batched := slices.Clone(spec.Shape), false
		for i, d := range shape {
			if d < 0 {
				shape[i] = 1
				batched = batched || i == 0
				open = open || i > 0
			}
		}
		kind := spec.Type
		if kind == tensor.Bytes {
			kind, open = tensor.Uint32, true
		}
		n, err := shape.Bytes(kind)
		if err != nil {
			n = tensor.MaxBytes
		}
		n = (n + 63) &^ 63
		if batched {
			rows += n
		} else {
			fixed += n
		}
	}
	total := max(fixed+rows, min(fixed+64*rows, maxSlotBytes), minSlotBytes)
	if open || meta.Streams {
		total = max(total, maxSlotBytes)
	}
	size := channel.Size{Slots: slotCount, SlotBytes: min(total, channel.MaxSlotBytes)}
	size.WarmBytes = (min(fixed+rows, warmBytes) + 4095) &^ 4095
	size.WarmSlots = min(slotCount, max(4, warmTotal/max(size.WarmBytes, 1)))
	return size
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

// takeSlot takes a slot for a job, waiting no longer than slotWait, the client
// or the job's timeout.
func (m *model) takeSlot(mem *memory, j *job) (int, error) {
	patience := slotWait
	if !j.rank.expires.IsZero() {
		patience = min(patience, time.Until(j.rank.expires))
	}
	slot, ok := mem.take(j.ctx, patience)
	if ok {
		return slot, nil
	}
	if err := m.unwanted(j); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("%w: %s has %d requests at work", ErrOverloaded, m.Name, slotCount)
}

func (m *memory) pop() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	slot := m.free[len(m.free)-1]
	m.free = m.free[:len(m.free)-1]
	return slot
}

// release gives a slot back of which used bytes may have been written.
func (m *memory) release(slot, used int) {
	m.mu.Lock()
	if m.stale[slot] {
		m.stale[slot] = false
		m.region.Punch(slot)
	} else {
		m.region.Trim(slot, used)
	}
	m.free = append(m.free, slot)
	m.mu.Unlock()
	m.tokens <- struct{}{}
}
