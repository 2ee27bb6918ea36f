package node

import (
	"context"
	"errors"
	"fmt"
	"io"

	"oscine.dev/oscine/internal/node/kind/model"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/pki"
)

// InstallPack stores a pack, after checking that it is one for this architecture
// and signed by an admin, and replaces the one of the same name. Models that run from
// the old one keep it until their workers restart.
func (n *Node) InstallPack(ctx context.Context, r io.Reader, signature pki.Signature) (*pack.Info, error) {
	if err := n.disk.Room(); err != nil {
		return nil, fmt.Errorf("install the pack: %w", err)
	}
	info, err := n.packs.Install(ctx, model.Asking(r, n.disk.Room), signature)
	if err != nil {
		return nil, packError(err)
	}
	n.log.Info("pack installed", "name", info.Name, "version", info.Version, "digest", info.Digest)
	if len(info.Engines) > 0 {
		n.retryModels()
	}
	if len(info.Drivers) > 0 {
		n.drivers.Wake()
	}
	return info, nil
}

// Packs lists the installed packs by name.
func (n *Node) Packs() ([]pack.Info, error) { return n.packs.List() }

// RemovePack removes a pack that no model runs on.
func (n *Node) RemovePack(_ context.Context, name string) error {
	info, err := n.packs.Find(name)
	if err != nil {
		return packError(err)
	}
	for _, state := range n.loop.Get(object.KindModel, "") {
		if st, ok := state.Status.(*object.ModelStatus); ok && st.Pack == info.Digest {
			return fmt.Errorf("%w: %s runs on the pack %s: delete that first", ErrConflict, state.Key, info.Name)
		}
	}
	if len(info.Drivers) > 0 {
		defer n.drivers.Wake()
	}
	return packError(n.packs.Remove(info.Name))
}

func packError(err error) error {
	switch {
	case errors.Is(err, pack.ErrNotInstalled):
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case errors.Is(err, pack.ErrNotPack):
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return err
}

// retryModels wakes the models: some may wait for an engine.
func (n *Node) retryModels() {
	n.loop.Wake(func(obj object.Object) bool { return obj.Key().Kind == object.KindModel })
}
