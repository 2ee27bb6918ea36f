package core

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"oscine.dev/oscine/internal/tensor"
)

// Caching says which of a model's responses are kept, to answer the same request
// once more without a run.
type Caching struct {
	Bytes int64 // that they may take; 0: none is kept
	// PerClient keeps them for the client that asked first. Otherwise a client can
	// tell by the time an answer takes that another one has asked the same.
	PerClient bool
}

// MaxCache bounds Caching.Bytes, and the bytes of all models' caches, where the
// daemon may have eight times that.
const MaxCache = 1 << 30

// entryBytes is what an entry takes besides its tensors.
const entryBytes = 512

// cache is the responses of one load of a model. The least recently used make
// room for others.
type cache struct {
	Caching
	room *semaphore.Weighted // bytes of the caches of all models

	metrics *metrics

	mu      sync.Mutex
	bytes   int64
	closed  bool
	cleared int // times, so far
	entries map[cacheKey]*list.Element
	recent  list.List // of *cached, the most recently used first
}

// cacheKey is a digest of all that an answer depends on.
type cacheKey [sha256.Size]byte

// cached is one response.
type cached struct {
	key     cacheKey
	bytes   int64
	outputs []Output
}

// newCache returns nil where nothing is to be kept.
func newCache(c Caching, room *semaphore.Weighted, m *metrics) *cache {
	if c.Bytes == 0 {
		return nil
	}
	return &cache{Caching: c, room: room, metrics: m, entries: map[cacheKey]*list.Element{}}
}

func (c *Caching) check() error {
	if c.Bytes < 0 || c.Bytes > MaxCache {
		return fmt.Errorf("a response cache of %d bytes: choose at most %d", c.Bytes, MaxCache)
	}
	return nil
}

// key is that of a request whose inputs lie in its slot.
func (c *cache) key(ctx context.Context, call *call, slot []byte) (key cacheKey) {
	sum, run := sha256.New(), &call.job.request
	var head []byte
	if c.PerClient {
		client := ClientOf(ctx)
		head = append(binary.AppendUvarint(head, uint64(len(client))), client...)
	}
	head = binary.AppendUvarint(head, uint64(len(run.Wanted)))
	for _, output := range run.Wanted {
		head = binary.AppendUvarint(head, uint64(output))
	}
	for i, shape := range run.Shapes {
		head = binary.AppendUvarint(head, uint64(len(shape)))
		for _, d := range shape {
			head = binary.AppendVarint(head, d)
		}
		head = binary.AppendUvarint(head, uint64(run.Sizes[i]))
	}
	sum.Write(head)
	for i, n := range run.Sizes {
		sum.Write(slot[call.offsets[i] : call.offsets[i]+n])
	}
	sum.Sum(key[:0])
	return key
}

// get fills an answer with a response that is kept. It reports false where there
// is none.
func (c *cache) get(ctx context.Context, key cacheKey, a *answer, began time.Time) (bool, error) {
	c.mu.Lock()
	e := c.entries[key]
	if e == nil {
		c.mu.Unlock()
		c.metrics.misses.observe(time.Since(began))
		return false, nil
	}
	c.recent.MoveToFront(e)
	entry := e.Value.(*cached)
	c.mu.Unlock()
	if err := a.hold(ctx, int(entry.bytes)); err != nil {
		return true, err
	}
	for i := range entry.outputs {
		from := &entry.outputs[i]
		a.add(from.Name, from.Type, from.Shape, from.Data)
	}
	c.metrics.hits.observe(time.Since(began))
	return true, nil
}

// generation is for put, of a response whose run is about to begin.
func (c *cache) generation() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cleared
}

// put keeps a response, where there is room for it, unless the cache was cleared
// since its run began.
func (c *cache) put(key cacheKey, outputs []Output, generation int) {
	entry := &cached{key: key, bytes: entryBytes}
	for i := range outputs {
		entry.bytes += int64(len(outputs[i].Data))
	}
	if entry.bytes > c.Bytes {
		return
	}
	for i := range outputs {
		out := &outputs[i]
		entry.outputs = append(entry.outputs, Output{out.Name, out.Type, append(tensor.Shape{}, out.Shape...), slices.Clone(out.Data)})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.cleared != generation || c.entries[key] != nil {
		return
	}
	for c.bytes+entry.bytes > c.Bytes || !c.room.TryAcquire(entry.bytes) {
		if !c.dropLast() {
			return // other models' caches have all the room
		}
	}
	c.bytes += entry.bytes
	c.entries[key] = c.recent.PushFront(entry)
}

// dropLast drops the least recently used entry, if there is one. The caller holds
// mu.
func (c *cache) dropLast() bool {
	e := c.recent.Back()
	if e == nil {
		return false
	}
	entry := c.recent.Remove(e).(*cached)
	delete(c.entries, entry.key)
	c.bytes -= entry.bytes
	c.room.Release(entry.bytes)
	return true
}

// clear drops everything, and what runs give that have begun. There may be no
// cache.
func (c *cache) clear() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cleared++
	for c.dropLast() {
	}
}

// close drops everything, and keeps nothing any more. There may be no cache.
func (c *cache) close() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for c.dropLast() {
	}
}

// CacheFigures is what a model's response cache has done.
type CacheFigures struct {
	On           bool
	Hits, Misses int64
	HitTime      time.Duration // inside the daemon, of the hits
	MissTime     time.Duration // of looking for the misses
	Bytes        int64         // that are kept
}

func (c *cache) figures() (f CacheFigures) {
	if c == nil {
		return f
	}
	hits, misses := &c.metrics.hits, &c.metrics.misses
	f = CacheFigures{On: true, Hits: hits.count(), Misses: misses.count(), HitTime: time.Duration(hits.sum.Load()), MissTime: time.Duration(misses.sum.Load())}
	c.mu.Lock()
	defer c.mu.Unlock()
	f.Bytes = c.bytes
	return f
}
