package isolate

import (
	"maps"
	"slices"

	"oscine.dev/oscine/internal/hardware"
)

// view is what is promised, as readers see it. Changes publish a new one when
// they end, so that the guard and Status never wait for a change under way,
// which may write hundreds of kernel files. Nothing in a view changes.
type view struct {
	held         map[string]*holding
	gaps         []Gap
	reserved     hardware.Set
	machineAwake bool // by /dev/cpu_dma_latency
}

// change begins a change and returns what ends it.
func (i *Isolator) change() (done func()) {
	i.mu.Lock()
	return func() {
		i.publish()
		i.mu.Unlock()
	}
}

// publish shows readers what holds now; the caller must hold mu.
func (i *Isolator) publish() {
	v := &view{
		held: make(map[string]*holding, len(i.held)), gaps: slices.Clone(i.gaps),
		reserved: i.reserved, machineAwake: i.dmaLatency != nil,
	}
	for id, h := range i.held {
		one := *h
		one.pids, one.reserved, one.unheld = slices.Clone(h.pids), maps.Clone(h.reserved), slices.Clone(h.unheld)
		v.held[id] = &one
	}
	i.shown.Store(v)
}

// view returns what was published last.
func (i *Isolator) view() *view { return i.shown.Load() }
