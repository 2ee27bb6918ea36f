package model

import (
	"maps"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/channel"
)

// options are passed to the engine: the manifest's own, and what it states of
// batches.
func options(m *object.Model) map[string]string {
	if m.Spec.DynamicBatching == nil {
		return m.Spec.Options
	}
	all := map[string]string{channel.OptionBatch: channel.BatchIndependent}
	maps.Copy(all, m.Spec.Options)
	if m.Spec.DynamicBatching.Disabled {
		all[channel.OptionBatch] = channel.BatchAlone
	}
	return all
}
