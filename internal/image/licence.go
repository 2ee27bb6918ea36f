package image

import (
	"context"
	"errors"
	"io/fs"
	"maps"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/licence"
)

// under notes the licence of a component and the texts that it refers to.
func (c *content) under(id string, l licence.Licence) {
	p := c.parts[id]
	p.Licence = l.Expression
	c.parts[id] = p
	maps.Copy(c.texts, l.Texts)
}

// deb records a package of a tree as a component.
func (c *content) deb(tree *debian.Tree, p debian.Package) (id string, err error) {
	id = c.component(Component{Name: p.Name, Version: p.Version, Kind: "deb", Arch: p.Arch, SHA256: p.SHA256, Download: p.Path})
	_, text, err := tree.Copyright(p)
	if errors.Is(err, fs.ErrNotExist) {
		return id, nil
	}
	if err != nil {
		return "", err
	}
	l, err := licence.OfCopyright(text)
	if err != nil {
		return "", err
	}
	c.under(id, l)
	return id, nil
}

// moduleLicences finds the licences of the Go modules among the components. It
// needs the go command and its module cache, which built the programs; those of
// modules that this machine lacks stay unknown.
func (c *content) moduleLicences(ctx context.Context, source string) error {
	modules, err := licence.OpenModules(ctx, source)
	if err != nil {
		return err
	}
	for _, p := range c.components() {
		if p.Kind != "go" {
			continue
		}
		l, err := modules.Find(p.Name, p.Version)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		c.under(p.ID(), l)
	}
	return nil
}

// unlicensed lists the components whose licence is not known.
func (c *content) unlicensed() (names []string) {
	for _, p := range c.components() {
		if p.Licence == "" {
			names = append(names, p.Name)
		}
	}
	return names
}
