package pack

import (
	"context"
	"slices"
	"strings"
)

func nvidiaRecipe() recipe {
	return recipe{
		name:     "nvidia",
		manifest: Manifest{Name: "nvidia", Version: "1-" + revision, Drivers: []string{"oscine-nvml"}},
		steps:    []func(*builder, context.Context, *lock) error{(*builder).helper},
	}
}

// helper is the driver program of the NVIDIA pack. NVIDIA's own libraries are
// not in it: they must be those of the node's kernel driver.
func (b *builder) helper(ctx context.Context, _ *lock) error {
	b.usesPurego()
	if err := b.compile(ctx, "oscine-nvml", DriversPath); err != nil {
		return err
	}
	for component, spdx := range map[string]string{
		"github.com/klauspost/compress": "BSD-3-Clause AND Apache-2.0 AND MIT", "github.com/ulikunitz/xz": "BSD-3-Clause",
		"github.com/fsnotify/fsnotify": "BSD-3-Clause", "github.com/opencontainers/runtime-spec": "Apache-2.0",
		"go.yaml.in/yaml/v3": "MIT AND Apache-2.0", "tags.cncf.io/container-device-interface": "Apache-2.0",
	} {
		b.manifest.Licences = append(b.manifest.Licences, Licence{Component: component, SPDX: spdx})
	}
	slices.SortFunc(b.manifest.Licences, func(x, y Licence) int { return strings.Compare(x.Component, y.Component) })
	return nil
}
