package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
)

// defaultEngine runs models that name none. A second engine will choose by the
// file's format.
const defaultEngine = "onnxruntime"

func engineOf(obj *object.Model) string {
	if obj.Spec.Engine != "" {
		return obj.Spec.Engine
	}
	return defaultEngine
}

// InstallPack stores a pack, after checking that it is one and for this
// architecture, and replaces the one of the same name. Models that run from
// the old one go on with it until their workers start anew.
func (n *Node) InstallPack(ctx context.Context, r io.Reader) (*pack.Info, error) {
	info, err := n.packs.Install(ctx, r)
	if err != nil {
		return nil, packError(err)
	}
	n.log.Info("pack installed", "name", info.Name, "version", info.Version, "digest", info.Digest)
	n.retryModels(info.Engines)
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
	n.mu.Lock()
	defer n.mu.Unlock()
	for key, c := range n.controllers {
		if st, ok := c.status().(ModelStatus); ok && st.Pack == info.Digest {
			return fmt.Errorf("%w: %s runs on the pack %s: delete that first", ErrConflict, key, info.Name)
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

// retryModels wakes the models that wait for an engine.
func (n *Node) retryModels(engines []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.controllers {
		m, ok := c.controller.(*model)
		if ok && slices.Contains(engines, engineOf(m.current().(*object.Model))) {
			m.ring()
		}
	}
}
