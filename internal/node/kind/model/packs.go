package model

import (
	"errors"
	"fmt"
	"io"
	"os"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
)

// mountPack finds the pack for a model, by what it asks for and by its file,
// and mounts it.
func (c *controller) mountPack(m *object.Model, devices []string) (*pack.Info, string, error) {
	q := pack.Question{Engine: m.Spec.Engine, Suffix: m.Spec.Format, Protocols: c.o.Protocols, Head: make([]byte, pack.HeadBytes)}
	f, err := os.Open(c.o.Files.Path(m.Spec.Source))
	if err != nil {
		return nil, "", fmt.Errorf("open the model's file: %w", err)
	}
	defer f.Close()
	size, err := io.ReadFull(f, q.Head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, "", fmt.Errorf("read the model's file: %w", err)
	}
	q.Head = q.Head[:size]
	p, err := c.o.Packs.Choose(q)
	if err != nil {
		return nil, "", err
	}
	memory, _ := m.Spec.Resources.Memory.Value() // checked with the manifest
	if err := p.CheckUse(devices, memory); err != nil {
		return nil, "", err
	}
	return c.o.Packs.Mount(p.Name)
}
