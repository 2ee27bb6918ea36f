package model

import (
	"context"
	"errors"
	"fmt"
	"time"

	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
)

// How long a model waits that cannot move to the newer version of its pack now, and
// while another one moves.
const (
	moveAgain = time.Minute
	moveTurn  = time.Second
)

// errStays says that there is no room for a worker of the newer version beside the one
// that answers.
var errStays = errors.New("no room for two workers at once")

// named is a work as the others that it is told apart from: by its pack where it moves to
// another version of that, else by its manifest's version.
func (w *work) named(byPack bool) string {
	if byPack {
		return fmt.Sprintf("the pack %s %s", w.engine.Name, w.engine.Version)
	}
	return "version " + w.model.Spec.Version
}

// move takes a model that answers to the version that has taken the place of the one of its
// pack: a worker of that one starts beside its own, loads and tests the model, and answers
// as its own does, before it gets the requests. Where it fails the model stays, and the
// reason is kept. It returns when to try again; 0: only after something has changed.
func (c *controller) move(ctx context.Context) (again time.Duration, err error) {
	if c.live == nil || c.live.engine == nil || c.live.key != c.key {
		return 0, nil
	}
	old := c.live
	next, why := c.o.Packs.Successor(c.key.String(), old.engine.Digest)
	if next == nil || why != "" {
		return 0, nil
	}
	now, ok := c.o.Server.Serving(c.key.Name)
	if !ok {
		return 0, nil
	}
	var st object.ModelStatus
	if now.Fill(&st); st.Sequences > 0 {
		return c.later(next, fmt.Sprintf("%d sequences are under way, whose state it would lose", st.Sequences)), nil
	}
	select {
	case c.o.Moving <- struct{}{}:
		defer func() { <-c.o.Moving }()
	default:
		return moveTurn, nil
	}
	w, err := c.onto(old, next)
	if err == nil {
		c.setMove(object.Starting, fmt.Sprintf("a worker of %s loads the model beside the one that answers", w.named(true)))
		err = c.replace(ctx, w)
		c.fresh = false
	}
	if err == nil {
		return 0, c.moved(old, w)
	}
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if errors.Is(err, pack.ErrDamaged) {
		return c.later(next, err.Error()), nil
	}
	if errors.Is(err, errStays) {
		return c.later(next, fmt.Sprintf("%v: oscine restart model %s ends the worker first, and requests wait", err, c.key.Name)), nil
	}
	if c.live != nil && c.live.key != c.key { // the new version answers beside the model's own place
		if e := c.settle(ctx); e != nil {
			return 0, errors.Join(err, e)
		}
		return 0, c.moved(old, w)
	}
	if e := c.o.Packs.Stay(c.key.String(), old.engine.Digest, err.Error()); e != nil {
		c.o.Log.Warn("that a model stays on an older pack is not kept", "name", c.key.Name, "error", e)
		again = moveAgain
	}
	c.setMove(object.Failed, stayed(next, err.Error()))
	c.report.Event(reconcile.ReasonNotMoved, fmt.Sprintf("%s; %s serves on", stayed(next, err.Error()), old.named(true)))
	if c.live == nil || !c.answers() {
		return 0, err
	}
	return again, c.giveUpIdle(ctx)
}

func stayed(next *pack.Info, why string) string {
	return fmt.Sprintf("it does not run on the pack %s %s: %s", next.Name, next.Version, why)
}

// onto is a work on another version of its pack.
func (c *controller) onto(old *work, next *pack.Info) (*work, error) {
	w := *old
	w.stays, w.moves, w.now, w.unsure, w.inTurn = false, true, true, old.onDemand(), c.fresh
	usable, err := c.candidates(&w)
	if err != nil {
		return nil, err
	}
	for i := range usable {
		if usable[i].Digest == next.Digest {
			w.engine, w.root, err = c.o.Packs.Mount(next.Digest)
			return &w, err
		}
	}
	return nil, errors.New("it does not read the model, or not with what the model asks for")
}

// later tells once why a model does not move now.
func (c *controller) later(next *pack.Info, why string) time.Duration {
	message := fmt.Sprintf("it moves to the pack %s %s later: %s", next.Name, next.Version, why)
	c.setMove(object.Waiting, message)
	if message != c.waits {
		c.waits = message
		c.report.Event(reconcile.ReasonNotMoved, message)
	}
	return moveAgain
}

// setMove shows how far the move to the newer version of the pack is.
func (c *controller) setMove(phase object.Phase, message string) {
	c.set(func(st *object.ModelStatus) {
		st.PackUpdate = &object.ModelUpdate{Phase: phase, Message: message}
	})
}

// moved notes that a model has left the older version of its pack.
func (c *controller) moved(old, w *work) error {
	c.waits = ""
	c.set(func(st *object.ModelStatus) {
		st.PackUpdate = nil
		st.Candidates = []object.ModelCandidate{{Pack: w.engine.Name + " " + w.engine.Version, Chosen: true, Reason: "took the place of version " + old.engine.Version}}
	})
	c.report.Event(reconcile.ReasonMoved, fmt.Sprintf("runs on %s, in place of version %s", w.named(true), old.engine.Version))
	return c.o.Packs.Moved(c.key.String(), w.engine.Digest)
}

// staysOn reports whether a model that comes up on an older version of its pack is to move
// from there, and shows why where it is not.
func (c *controller) staysOn(w *work) bool {
	c.set(func(st *object.ModelStatus) { st.PackUpdate = nil })
	next, why := c.o.Packs.Successor(c.key.String(), w.engine.Digest)
	if next != nil && why != "" {
		c.setMove(object.Failed, stayed(next, why))
	}
	return next != nil && why == ""
}
