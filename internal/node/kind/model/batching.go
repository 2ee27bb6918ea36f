package model

import (
	"maps"
	"time"

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

func preferred(d *object.DynamicBatching) []int {
	if d == nil {
		return nil
	}
	return d.PreferredBatchSizes
}

func queueDelay(d *object.DynamicBatching) time.Duration {
	if d == nil {
		return 0
	}
	return d.MaxQueueDelay.Std()
}

func maxBatch(d *object.DynamicBatching) int {
	if d == nil {
		return 0
	}
	return d.MaxBatchSize
}
