package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"oscine.dev/oscine/internal/journal"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
)

// LogLine is one line of a log.
type LogLine struct {
	Time   time.Time
	Stream string // stdout, stderr, or a kernel level
	Text   string
}

var sourceRE = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// Logs calls each with the lines of an object, or for an empty kind of a
// system program, oldest first: the last tail ones, all for 0. With follow it
// goes on until ctx ends or, for a workload, until it has ended and will not restart.
func (n *Node) Logs(ctx context.Context, kind object.Kind, name string, follow bool, tail int, each func(LogLine) error) error {
	if kind == "" && name == initProgram && n.config.Mode == OnImage {
		return initLog(ctx, linux.KernelLogFile, follow, tail, each)
	}
	path, err := n.logPath(kind, name)
	if err != nil {
		return err
	}
	send := func(l journal.Line) error {
		return each(LogLine{l.Time, string(l.Stream), l.Text})
	}
	if !follow {
		return journal.Read(ctx, path, journal.Query{Tail: tail}, send)
	}
	query := journal.Query{Tail: tail, Follow: true}
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
		if event == reconcile.EventDeleted || state.Status.Common().Phase == object.Exited {
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

func (n *Node) logPath(kind object.Kind, name string) (string, error) {
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
	if _, err := n.Get(kind, name); err != nil {
		return "", err
	}
	path := n.systemLog(object.Key{Kind: kind, Name: name}.ID())
	if !journal.Exists(path) {
		return "", fmt.Errorf("%w: %s %s has not started yet: see oscine describe", ErrConflict, kind, name)
	}
	return path, nil
}

func (n *Node) systemLog(name string) string {
	return filepath.Join(n.config.LogDir, name+".log")
}
