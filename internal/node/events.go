package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/journal"
	"oscine.dev/oscine/internal/node/allocate"
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
}

// Reasons of events about objects; those about devices are
// hardware.ChangeReason, those about promises isolate's.
const (
	reasonStarted   = "Started"
	reasonExited    = "Exited"
	reasonFailed    = "Failed"
	reasonUnplaced  = "Unplaced"
	reasonDisplaced = "Displaced"
	reasonUnhealthy = "Unhealthy"
	reasonHealthy   = "Healthy"
)

// EventQuery chooses events.
type EventQuery struct {
	Kind     object.Kind // "": all
	Name     string      // "": all
	Device   string      // "": all
	Warnings bool        // only what a person should look at
	Follow   bool        // go on with events as they come
	Tail     int         // at most the last so many; 0 means all
}

func (q *EventQuery) chooses(e *Event) bool {
	return (q.Kind == "" || e.Kind == q.Kind) && (q.Name == "" || e.Name == q.Name) &&
		(q.Device == "" || e.Device == q.Device) && (!q.Warnings || e.Warning)
}

// Bounds of what is remembered; the journal on disk is bounded by bytes.
const (
	maxEvents        = 512
	maxAlike         = 32 // of one reason and object, so that no one fills the memory
	maxEventMessage  = 1 << 10
	eventJournal     = "events"
	eventJournalSize = 512 << 10
)

// eventLog is a bounded memory of events. What happens again is counted, not
// listed again. Each is in a journal besides, so that a restart forgets none.
type eventLog struct {
	log *slog.Logger

	mu      sync.Mutex
	events  []*Event // the most lately seen last
	journal *journal.Writer
	news    chan struct{} // closed and replaced at each event
}

// openEvents reads back what an earlier daemon noted at path.
func openEvents(ctx context.Context, path string, log *slog.Logger) (*eventLog, error) {
	l := &eventLog{log: log, news: make(chan struct{})}
	err := journal.Read(ctx, path, journal.Query{Tail: 4 * maxEvents}, func(line journal.Line) error {
		var e Event
		if json.Unmarshal([]byte(line.Text), &e) == nil && e.Reason != "" { // else torn or of another release
			l.remember(&e)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the events: %w", err)
	}
	l.journal, err = journal.Open(path, eventJournalSize)
	return l, err
}

func (l *eventLog) close() error { return l.journal.Close() }

// remember puts an event behind the others, in place of an earlier one that
// says the same.
func (l *eventLog) remember(e *Event) {
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

// add notes an event that happens now, unless it says when.
func (l *eventLog) add(e Event) {
	if e.Last.IsZero() {
		e.Last = time.Now()
	}
	e.First, e.Count = e.Last, 1
	if len(e.Message) > maxEventMessage {
		e.Message = strings.ToValidUTF8(e.Message[:maxEventMessage-3], "") + "…"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.IndexFunc(l.events, e.same); i >= 0 {
		e.First, e.Count = l.events[i].First, l.events[i].Count+1
	}
	l.remember(&e)
	close(l.news)
	l.news = make(chan struct{})
	text, err := json.Marshal(e)
	if err == nil {
		err = l.journal.Append(journal.Line{Time: e.Last, Stream: journal.Stdout, Text: string(text)})
	}
	if err != nil {
		l.log.Warn("an event is not on disk", "error", err)
	}
}

// after returns copies of the events seen after a moment, oldest first, and
// what is closed when there are more.
func (l *eventLog) after(moment time.Time) ([]Event, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []Event
	for _, e := range l.events {
		if e.Last.After(moment) {
			list = append(list, *e)
		}
	}
	return list, l.news
}

// Events calls each with the chosen events, the oldest first. One that happens
// again while it is followed comes again, with its count. It returns each's
// error, or the context's.
func (n *Node) Events(ctx context.Context, q EventQuery, each func(Event) error) error {
	if err := n.checkKind(q.Kind); err != nil {
		return err
	}
	list, more := n.events.after(time.Time{})
	var last time.Time
	tail := q.Tail
	for {
		if len(list) > 0 {
			last = list[len(list)-1].Last
		}
		list = slices.DeleteFunc(list, func(e Event) bool { return !q.chooses(&e) })
		if tail > 0 && len(list) > tail {
			list = list[len(list)-tail:]
		}
		tail = 0 // of what was there already
		for _, e := range list {
			if err := each(e); err != nil {
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
		list, more = n.events.after(last)
	}
}

// note records what happened to an object.
func (n *Node) note(key object.Key, reason, message string) {
	warning := reason != reasonStarted && reason != reasonHealthy && reason != reasonExited
	n.events.add(Event{Kind: key.Kind, Name: key.Name, Warning: warning, Reason: reason, Message: message})
}

// noteStart records that a workload runs, unless an earlier daemon started it.
func (n *Node) noteStart(key object.Key, began, started time.Time, placed *allocate.Placement) {
	if started.Before(began) {
		return
	}
	message := "on CPUs " + placed.Status().CPUs
	if devices := placed.Status().Devices; len(devices) > 0 {
		message += " with " + strings.Join(devices, ", ")
	}
	n.note(key, reasonStarted, message)
}

// noteFailure records why an object does not run.
func (n *Node) noteFailure(key object.Key, phase object.Phase, err error) {
	reason := reasonFailed
	if phase == object.Unplaced {
		reason = reasonUnplaced
	}
	n.note(key, reason, err.Error())
}

// notePhase records what became of a served model's worker.
func (m *model) notePhase(st *object.ModelStatus) {
	switch st.Phase {
	case object.Running:
		m.n.note(m.key, reasonStarted, "serves with "+st.Engine)
	case object.Failed, object.Waiting, object.Unplaced:
		m.n.noteFailure(m.key, st.Phase, errors.New(st.Message))
	}
}

// since puts why a placement was lost before what came of it.
func since(lost, err error) error {
	if lost == nil {
		return err
	}
	return fmt.Errorf("its place is gone (%w); placed anew: %w", lost, err)
}

// notePromise records what became of a promise of isolation.
func (n *Node) notePromise(e isolate.Event) {
	key, _ := n.config.Kinds.ParseID(e.ID) // else of the classes as a whole
	warning := e.Reason != isolate.ReasonRepaired && e.Reason != isolate.ReasonResumed
	n.events.add(Event{Last: e.Time, Kind: key.Kind, Name: key.Name, Warning: warning, Reason: e.Reason, Message: e.Message})
}

// noteChange records a change of the hardware, for each object that holds the
// device as well.
func (n *Node) noteChange(c hardware.Change) {
	e := Event{Device: c.Device, Warning: c.Warning, Reason: string(c.Reason), Message: c.What}
	n.events.add(e)
	for _, id := range n.placer.Holders(c.Device) {
		if key, err := n.config.Kinds.ParseID(id); err == nil {
			e.Kind, e.Name = key.Kind, key.Name
			n.events.add(e)
		}
	}
}

// sawHardware tells people of a new map and of what changed on it.
func (n *Node) sawHardware(m *hardware.Machine, changes []hardware.Change) {
	n.live.Set(m, changes)
	for _, c := range changes {
		n.noteChange(c)
	}
}
