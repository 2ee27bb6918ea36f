package main

import (
	"errors"
	"os"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/node"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update/stick"
)

// upgrading is how the node goes to other releases: only on the image.
func (o *options) upgrading() node.Upgrading {
	if o.hosted {
		return node.Upgrading{}
	}
	root, err := os.ReadFile(release.TrustedRoot)
	if err != nil {
		root = nil // the Machine may name one
	}
	return node.Upgrading{
		Facts: o.facts, Open: stick.Open, Root: root,
		Tell: func(n release.Notification) error {
			if err := notify(n); err != nil && !errors.Is(err, linux.ErrNoSupervisor) {
				return err
			}
			return nil
		},
	}
}
