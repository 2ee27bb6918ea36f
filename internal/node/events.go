package node

import (
	"context"
	"fmt"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
)

// Event is something that happened to an object, a device or the machine and
// that a person may want to know of later.
type Event = reconcile.Event

// EventQuery chooses events.
type EventQuery = reconcile.Query

// eventJournal is the name of the events' journal in the folder of logs.
const eventJournal = "events"

// Events calls each with the chosen events, the oldest first. One that happens
// again while it is followed comes again, with its count. It returns each's
// error, or the context's.
func (n *Node) Events(ctx context.Context, q EventQuery, each func(Event) error) error {
	if err := n.checkKind(q.Kind); err != nil {
		return err
	}
	return n.events.Each(ctx, q, each)
}

// note records what happened to an object.
func (n *Node) note(key object.Key, reason, message string) {
	n.events.Add(reconcile.ObjectEvent(key, reason, message))
}

// noteAccess records who may no longer come in, or may again.
func (n *Node) noteAccess(reason, message string) {
	n.log.Info(message)
	n.events.Add(Event{Reason: reason, Message: message})
}

// noteIdentity records what became of the node's own certificate.
func (n *Node) noteIdentity(warning bool, reason, message string) {
	n.log.Info(message)
	n.events.Add(Event{Warning: warning, Reason: reason, Message: message})
}

// notePromise records what became of a promise of isolation.
func (n *Node) notePromise(e isolate.Event) {
	key, _ := n.config.Kinds.ParseID(e.ID) // zero where it is about none
	warning := e.Reason != isolate.ReasonRepaired && e.Reason != isolate.ReasonResumed
	n.events.Add(Event{Last: e.Time, Kind: key.Kind, Name: key.Name, Warning: warning, Reason: e.Reason, Message: e.Message})
}

// noteChange records a change of the hardware, for each object that holds the
// device as well.
func (n *Node) noteChange(c hardware.Change) {
	e := Event{Device: c.Device, Warning: c.Warning, Reason: string(c.Reason), Message: c.What}
	n.events.Add(e)
	for _, id := range n.placer.Holders(c.Device) {
		if key, err := n.config.Kinds.ParseID(id); err == nil {
			e.Kind, e.Name = key.Kind, key.Name
			n.events.Add(e)
		}
	}
}

// sawHardware publishes a new map and the events of what changed on it.
func (n *Node) sawHardware(m *hardware.Machine, changes []hardware.Change) {
	n.live.Set(m, changes)
	for _, c := range changes {
		n.noteChange(c)
	}
}

// hugePagesMissing tells that the Machine file's huge pages cannot be had.
func (n *Node) hugePagesMissing(size object.Quantity, err error) {
	n.log.Error("huge pages of the Machine file", "size", size, "error", err)
	n.events.Add(Event{Warning: true, Reason: isolate.ReasonBroken, Message: fmt.Sprintf("spec.hugePages of the Machine file: %v", err)})
}
