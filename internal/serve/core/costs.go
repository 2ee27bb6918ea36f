package core

import (
	"math/bits"
	"sync"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
)

// costs is how short runs were recently, by the size of their inputs: each entry
// is for sizes up to twice those of the one before. It is safe for concurrent use.
type costs struct {
	mu      sync.Mutex
	entries [40]cost
}

// cost is the shortest run of its entry.
type cost struct {
	bytes int
	took  time.Duration // 0: none was seen
}

func (c *costs) of(bytes int) *cost {
	return &c.entries[min(bits.Len(uint(bytes)), len(c.entries)-1)]
}

// observe counts a run. What was short once may not stay so: each
// longer one moves the entry a sixteenth of the way.
func (c *costs) observe(requests []channel.Request, took time.Duration) {
	bytes := 0
	for i := range requests {
		for _, n := range requests[i].Sizes {
			bytes += n
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := c.of(bytes)
	if entry.took == 0 || took <= entry.took {
		*entry = cost{bytes, took}
		return
	}
	entry.took += (took - entry.took) / 16
}

// least is how long a run of so many bytes takes at least, by those recently; 0
// where none was seen that was as small.
func (c *costs) least(bytes int) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if entry := c.of(bytes); entry.bytes <= bytes {
		return entry.took
	}
	return 0
}

// doubt shortens what a run of so many bytes is thought to take.
func (c *costs) doubt(bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of(bytes).took -= c.of(bytes).took / 8
}
