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
// goes on until ctx ends or, for a workload, until it has ended for good.
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
	following, stop := context.WithCancel(ctx)
	defer stop()
	if kind != "" { // a system program has no end of its own
		var wg sync.WaitGroup
		defer wg.Wait()
		defer stop()
		wg.Go(func() {
			n.awaitExited(following, kind, name)
			select {
			case <-time.After(logDrain):
			case <-following.Done():
			}
			stop()
		})
	}
	err = journal.Read(following, path, journal.Query{Tail: tail, Follow: true}, send)
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		return nil
	}
	return err
}

// logDrain is how long a log is followed after its workload has ended, for
// what is still in the pipe.
const logDrain = 300 * time.Millisecond

// awaitExited returns when a workload is in phase Exited, or with ctx.
func (n *Node) awaitExited(ctx context.Context, kind object.Kind, name string) {
	exited := errors.New("exited")
	err := n.Watch(ctx, kind, name, func(event string, state object.State) error {
		if event == reconcile.EventDeleted || state.Status.Common().Phase == object.Exited {
			return exited
		}
		return nil
	})
	if !errors.Is(err, exited) {
		<-ctx.Done()
	}
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
