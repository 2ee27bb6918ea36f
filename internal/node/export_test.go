package node

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"oscine.dev/oscine/internal/node/access"
	"oscine.dev/oscine/internal/node/identity"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
)

// OpenWithoutKernel opens the part of a node that needs no kernel: its store,
// its loop with the given controllers, its events, its logs and its models'
// requests.
func OpenWithoutKernel(ctx context.Context, dir string, kinds object.Table, machine *object.Machine, controllers map[object.Kind]reconcile.NewController) (*Node, error) {
	n := &Node{
		config:  Config{Mode: Hosted, StateDir: dir, LogDir: filepath.Join(dir, "log"), Kinds: kinds},
		machine: machine, log: slog.New(slog.DiscardHandler),
	}
	n.openRegistry()
	n.life, n.end = context.WithCancel(ctx)
	var err error
	if n.store, err = reconcile.OpenStore(filepath.Join(dir, "state.db"), kinds); err != nil {
		return nil, err
	}
	if n.access, err = access.Open(filepath.Join(dir, accessFile)); err != nil {
		return nil, errors.Join(err, n.store.Close())
	}
	if machine.Spec.API.Certificate != "" { // else nothing asks for it
		if n.identity, err = identity.Open(filepath.Join(dir, identityFile), machine.Spec.API, n.log); err != nil {
			return nil, errors.Join(err, n.store.Close())
		}
	}
	n.events = reconcile.OpenEvents(ctx, n.systemLog(eventJournal), time.Now, n.log)
	if err := n.startLoop(ctx, controllers); err != nil {
		return nil, errors.Join(err, n.events.Close(), n.store.Close())
	}
	n.loop.Start()
	return n, nil
}

// CloseWithoutKernel closes what OpenWithoutKernel opened.
func (n *Node) CloseWithoutKernel() error {
	n.loop.Close()
	n.end()
	n.registry.Close()
	return errors.Join(n.events.Close(), n.store.Close())
}
