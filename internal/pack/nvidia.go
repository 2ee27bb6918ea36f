package pack

import "context"

const nvidiaName = "nvidia"

func nvidiaSteps() []step { return []step{(*builder).helper} }

func nvidiaRecipe() recipe {
	return recipe{
		name:     nvidiaName,
		manifest: Manifest{Name: "nvidia", Version: "1-" + revision, Drivers: []string{"oscine-nvml"}},
	}
}

// helper is the driver program of the NVIDIA pack. NVIDIA's own libraries are
// not in it: they must be those of the node's kernel driver.
func (b *builder) helper(ctx context.Context, _ *lock) error {
	return b.compile(ctx, "oscine-nvml", DriversPath)
}
