package pack

import "context"

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
	return b.compile(ctx, "oscine-nvml", DriversPath)
}
