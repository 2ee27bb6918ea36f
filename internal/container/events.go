package container

import (
	"context"
	"sync"

	eventtypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/typeurl/v2"
)

// hub passes events to subscribers.
type hub struct {
	mu        sync.Mutex
	listeners map[chan Event]bool
}

// send never waits: a listener that is slow misses events.
func (h *hub) send(event Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for listener := range h.listeners {
		select {
		case listener <- event:
		default:
		}
	}
}

// Events sends changes until ctx ends, then closes the channel.
func (r *Runtime) Events(ctx context.Context) <-chan Event {
	h := &r.hub
	listener := make(chan Event, 256)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listeners == nil {
		h.listeners = map[chan Event]bool{}
	}
	h.listeners[listener] = true
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.listeners, listener)
		close(listener)
	})
	return listener
}

// watchOOM tells listeners of kills for want of memory as they happen. The
// truth of it, for Status, comes from the cgroup.
func (r *Runtime) watchOOM(ctx context.Context) {
	events, errs := r.engine.exchange.Subscribe(ctx, `topic=="`+runtime.TaskOOMEventTopic+`"`)
	r.watch.Go(func() {
		for {
			select {
			case <-errs:
				return
			case envelope := <-events:
				event, err := typeurl.UnmarshalAny(envelope.Event)
				if oom, ok := event.(*eventtypes.TaskOOM); ok && err == nil {
					r.hub.send(Event{Type: EventOOM, ID: oom.ContainerID, Time: envelope.Timestamp})
				}
			}
		}
	})
}
