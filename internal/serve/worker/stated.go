package worker

import (
	"fmt"
	"slices"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

// stateBatch applies what a Model's option batch states of the rows of its model,
// where no proof is at hand or none is wanted. "" states nothing.
func stateBatch(meta *channel.Metadata, stated string) error {
	switch stated {
	case channel.BatchAlone:
		meta.Batch = false
	case channel.BatchIndependent:
		for _, t := range slices.Concat(meta.Inputs, meta.Outputs) {
			if len(t.Shape) == 0 || t.Shape[0] != -1 || t.Type == tensor.Bytes {
				return fmt.Errorf("spec.dynamicBatching, or the option batch, states that rows are independent, but %q of %s has no open first dimension: leave it out", t.Name, t.Shape)
			}
		}
		meta.Batch = true
	}
	return nil
}
