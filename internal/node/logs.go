package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"oscine.dev/oscine/internal/journal"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pattern"
)

// LogLine is one line of a log.
type LogLine struct {
	Time   time.Time
	Stream string // stdout, stderr, or a kernel level
	Text   string
}

var sourceRE = pattern.New(`^[a-z0-9][a-z0-9-]{0,62}$`)

// LogQuery chooses lines of a log. The zero LogQuery is all there are now.
type LogQuery struct {
	Follow   bool      // go on with lines as they come
	Tail     int       // at most the last so many; 0 means all
	Since    time.Time // only lines from this time on
	Previous bool      // those of the run before the last one; not with Follow
	Instance int       // of a model, from 1; 0 means the first
}

// Logs calls each with the chosen lines of an object, or for an empty kind of a
// system program, oldest first. With Follow it goes on until ctx ends or, for a
// workload, until it has ended and will not restart.
func (n *Node) Logs(ctx context.Context, kind object.Kind, name string, q LogQuery, each func(LogLine) error) error {
	if q.Previous && (q.Follow || kind == "") {
		return fmt.Errorf("%w: the log of an earlier run is that of a workload or model, and has an end: leave out follow", ErrInvalid)
	}
	if kind == "" && name == initProgram && n.config.Mode == OnImage {
		return initLog(ctx, linux.KernelLogFile, q, each)
	}
	path, err := n.logPath(kind, name, q.Instance)
	if err != nil {
		return err
	}
	send := func(l journal.Line) error {
		return each(LogLine{l.Time, string(l.Stream), l.Text})
	}
	query := journal.Query{Tail: q.Tail, Since: q.Since, Previous: q.Previous, Follow: q.Follow}
	if !q.Follow {
		err := journal.Read(ctx, path, query, send)
		if errors.Is(err, journal.ErrNoPrevious) {
			return fmt.Errorf("%s %s: %w: %w", kind, name, ErrNotFound, err)
		}
		return err
	}
	if kind != "" { // a system program has no end of its own
		watching, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer stop()
		complete := make(chan struct{})
		query.Complete = complete
		wg.Go(func() {
			if n.awaitExited(watching, kind, name) {
				close(complete)
			}
		})
	}
	return journal.Read(ctx, path, query, send)
}

// awaitExited waits until an object has ended for good, when all that it said is
// in its log. It returns false where ctx ends before.
func (n *Node) awaitExited(ctx context.Context, kind object.Kind, name string) bool {
	exited := errors.New("exited")
	err := n.Watch(ctx, kind, name, func(event string, state object.State) error {
		if event == reconcile.EventDeleted || ended(state.Status.Common().Phase) {
			return exited
		}
		return nil
	})
	if errors.Is(err, exited) {
		return true
	}
	<-ctx.Done()
	return false
}

// ended reports whether an object in that phase writes no more by itself.
func ended(phase object.Phase) bool { return phase == object.Exited || phase == object.Stopped }

func (n *Node) logPath(kind object.Kind, name string, instance int) (string, error) {
	if kind != object.KindModel && instance != 0 {
		return "", fmt.Errorf("%w: only a model has instances: leave out instance", ErrInvalid)
	}
	if kind == "" {
		if key, err := n.config.Kinds.ParseID(name); err == nil {
			return "", fmt.Errorf("%w: %q is the log of an object: see oscine logs %s", ErrInvalid, name, key)
		}
		if !sourceRE.MatchString(name) {
			return "", fmt.Errorf("%w: %q is not the name of a system program", ErrInvalid, name)
		}
		path := n.systemLog(name)
		if !journal.Exists(path) {
			return "", fmt.Errorf("log of %q: %w: the system's own are oscined and, on the image, init", name, ErrNotFound)
		}
		return path, nil
	}
	states, err := n.Get(kind, name)
	if err != nil {
		return "", err
	}
	if m, ok := states[0].Object.(*object.Model); ok {
		switch n := m.Workers(); {
		case n == 0:
			return "", fmt.Errorf("%w: %s %s is an ensemble, which has no worker and no log: see those of the Models of its steps", ErrInvalid, kind, name)
		case instance > n:
			return "", fmt.Errorf("%w: %s %s has no instance %d, its last one is %d", ErrInvalid, kind, name, instance, n)
		}
	}
	path := n.systemLog(object.InstanceKey(object.Key{Kind: kind, Name: name}, max(instance-1, 0)).ID())
	if !journal.Exists(path) {
		return "", fmt.Errorf("%w: %s %s has not started yet: see oscine describe", ErrConflict, kind, name)
	}
	return path, nil
}

func (n *Node) systemLog(name string) string {
	return filepath.Join(n.config.LogDir, name+".log")
}
