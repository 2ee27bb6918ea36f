package reconcile

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"oscine.dev/oscine/internal/journal"
	"oscine.dev/oscine/internal/object"
)

// Event is something that happened to an object, a device or the machine and
// that a person may want to know of later.
type Event struct {
	First   time.Time   `json:"first"`            // when it happened first
	Last    time.Time   `json:"last"`             // and most lately
	Count   int         `json:"count"`            // how often
	Kind    object.Kind `json:"kind,omitempty"`   // of the object; "" where it is about none
	Name    string      `json:"name,omitempty"`   // of the object
	Device  string      `json:"device,omitempty"` // gpu0, eth0, mc0, a PCI address
	Warning bool        `json:"warning,omitempty"`
	Reason  string      `json:"reason"` // one word, such as DeviceLost
	Message string      `json:"message"`

	number uint64 // in the order in which this daemon noted or read them
}

// Reasons of events about objects; those about devices are
// hardware.ChangeReason, those about promises isolate's.
const (
	ReasonStarted   = "Started"
	ReasonExited    = "Exited"
	ReasonFailed    = "Failed"
	ReasonUnplaced  = "Unplaced"
	ReasonDisplaced = "Displaced"
	ReasonUnhealthy = "Unhealthy"
	ReasonHealthy   = "Healthy"
	ReasonChosen    = "Chosen" // another engine than the rules prefer
	ReasonMoved     = "PackUpgraded"
	ReasonNotMoved  = "PackNotUpgraded" // to the newer version of its pack, of which it stays on an older one
)

// ObjectEvent is the event of an object; what only tells that all is well is no
// warning.
func ObjectEvent(key object.Key, reason, message string) Event {
	warning := reason != ReasonStarted && reason != ReasonHealthy && reason != ReasonChosen && reason != ReasonMoved && reason != ReasonExited
	return Event{Kind: key.Kind, Name: key.Name, Warning: warning, Reason: reason, Message: message}
}

// Query chooses events.
type Query struct {
	Kind     object.Kind // "": all
	Name     string      // "": all
	Device   string      // "": all
	Warnings bool        // only what a person should look at
	Follow   bool        // go on with events as they come
	Tail     int         // at most the last so many; 0 means all
}

func (q *Query) chooses(e *Event) bool {
	return (q.Kind == "" || e.Kind == q.Kind) && (q.Name == "" || e.Name == q.Name) &&
		(q.Device == "" || e.Device == q.Device) && (!q.Warnings || e.Warning)
}

// Bounds of what is remembered; the journal on disk is bounded by bytes.
const (
	maxEvents       = 512
	maxAlike        = 32 // of one reason and object, so that no one fills the memory
	maxEventMessage = 1 << 10
	journalSize     = 512 << 10
)

// Events is a bounded memory of events. What happens again is counted, not
// listed again. Each is in a journal besides, so that a restart forgets none.
// It is safe for concurrent use; no reader waits for the disk.
type Events struct {
	log *slog.Logger
	now func() time.Time

	writing sync.Mutex // held while the journal is written; taken before mu
	journal *journal.Writer

	mu     sync.Mutex
	events []*Event // the most lately seen last
	last   uint64   // number given
	news   chan struct{}
}

// OpenEvents reads back what an earlier daemon noted at path, as far as it can be
// read. now tells the time of what is added.
func OpenEvents(ctx context.Context, path string, now func() time.Time, log *slog.Logger) *Events {
	l := &Events{log: log, now: now, news: make(chan struct{})}
	err := journal.Read(ctx, path, journal.Query{Tail: 4 * maxEvents}, func(line journal.Line) error {
		if e, ok := parseEvent(line.Text); ok {
			l.remember(e)
		}
		return nil
	})
	if err != nil { // they are for people; the node goes on without
		log.Error("earlier events cannot be read", "error", err)
	}
	l.journal = journal.Open(path, journalSize)
	return l
}

// parseEvent reads a line of the journal; it fails for one that is torn or of
// another release.
func parseEvent(text string) (*Event, bool) {
	var e Event
	err := json.Unmarshal([]byte(text), &e)
	return &e, err == nil && e.Reason != "" && e.Count > 0 && len(e.Message) <= maxEventMessage
}

// Close closes the journal.
func (l *Events) Close() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.journal.Close()
}

// remember puts an event behind the others, in place of an earlier one that
// says the same.
func (l *Events) remember(e *Event) {
	l.last++
	e.number = l.last
	l.events = slices.DeleteFunc(l.events, e.same)
	alike, oldest := 0, 0
	for i, o := range l.events {
		if o.Kind == e.Kind && o.Name == e.Name && o.Device == e.Device && o.Reason == e.Reason {
			if alike++; alike == 1 {
				oldest = i
			}
		}
	}
	if alike >= maxAlike {
		l.events = slices.Delete(l.events, oldest, oldest+1)
	}
	if len(l.events) >= maxEvents {
		l.events = slices.Delete(l.events, 0, len(l.events)-maxEvents+1)
	}
	l.events = append(l.events, e)
}

func (e *Event) same(o *Event) bool {
	return e.Kind == o.Kind && e.Name == o.Name && e.Device == o.Device && e.Reason == o.Reason && e.Message == o.Message
}

// Add notes an event that happens now, unless it says when.
func (l *Events) Add(e Event) {
	if e.Last.IsZero() {
		e.Last = l.now()
	}
	e.First, e.Count = e.Last, 1
	if len(e.Message) > maxEventMessage {
		e.Message = strings.ToValidUTF8(e.Message[:maxEventMessage-3], "") + "…"
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	e = l.insert(e)
	text, err := json.Marshal(e)
	if err == nil {
		err = l.journal.Append(journal.Line{Time: e.Last, Stream: journal.Stdout, Text: string(text)})
	}
	if err != nil {
		l.log.Warn("an event is not on disk", "error", err)
	}
}

func (l *Events) insert(e Event) Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.IndexFunc(l.events, e.same); i >= 0 {
		e.First, e.Count = l.events[i].First, l.events[i].Count+1
	}
	l.remember(&e)
	close(l.news)
	l.news = make(chan struct{})
	return e
}

// after returns copies of the events noted after one of a number, oldest first,
// and what is closed when there are more. It does not compare times: a clock
// may go back, and two events may have one time.
func (l *Events) after(number uint64) ([]Event, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []Event
	for _, e := range l.events {
		if e.number > number {
			list = append(list, *e)
		}
	}
	return list, l.news
}

// Each calls f with the chosen events, the oldest first. One that happens again
// while it is followed comes again, with its count. It returns f's error, or
// the context's.
func (l *Events) Each(ctx context.Context, q Query, f func(Event) error) error {
	list, more := l.after(0)
	var last uint64
	tail := q.Tail
	for {
		if len(list) > 0 {
			last = list[len(list)-1].number
		}
		list = slices.DeleteFunc(list, func(e Event) bool { return !q.chooses(&e) })
		if tail > 0 && len(list) > tail {
			list = list[len(list)-tail:]
		}
		tail = 0 // of what was there already
		for _, e := range list {
			if err := f(e); err != nil {
				return err
			}
		}
		if !q.Follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		}
		list, more = l.after(last)
	}
}
