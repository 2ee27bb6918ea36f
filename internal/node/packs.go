package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/channel"
)

// mountPack finds the pack for a model, by what it asks for and by its file,
// and mounts it.
func (n *Node) mountPack(obj *object.Model, devices []string) (*pack.Info, string, error) {
	q := pack.Question{Engine: obj.Spec.Engine, Suffix: obj.Spec.Format, Protocols: channel.Versions(), Head: make([]byte, pack.HeadBytes)}
	f, err := os.Open(n.modelFile(obj.Spec.Source))
	if err != nil {
		return nil, "", fmt.Errorf("open the model's file: %w", err)
	}
	defer f.Close()
	size, err := io.ReadFull(f, q.Head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, "", fmt.Errorf("read the model's file: %w", err)
	}
	q.Head = q.Head[:size]
	p, err := n.packs.Choose(q)
	if err != nil {
		return nil, "", err
	}
	memory, _ := obj.Spec.Resources.Memory.Value() // checked with the manifest
	if err := p.CheckUse(devices, memory); err != nil {
		return nil, "", err
	}
	return n.packs.Mount(p.Name)
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
	n.mu.Lock()
	defer n.mu.Unlock()
	for key, c := range n.controllers {
		if st, ok := c.status().(*object.ModelStatus); ok && st.Pack == info.Digest {
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

// retryModels wakes the models: some may wait for an engine.
func (n *Node) retryModels() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.controllers {
		if m, ok := c.controller.(*model); ok {
			m.ring()
		}
	}
}
