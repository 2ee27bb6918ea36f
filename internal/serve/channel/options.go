package channel

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// OptionBatch is the option that states of a model's rows whether requests may
// share a run, where no proof is at hand or none is wanted.
const (
	OptionBatch      = "batch"
	BatchIndependent = "independent" // no row depends on another
	BatchAlone       = "alone"       // every request is computed by itself
)

// OptionDeterministic is the option that states DeterministicNo of a model whose
// answers to the same inputs differ on purpose.
const (
	OptionDeterministic = "deterministic"
	DeterministicYes    = "true"
	DeterministicNo     = "false"
)

// workerOptions are the options of a Model that every worker knows, whatever its
// engine, with the values that each may have.
var workerOptions = map[string][]string{
	OptionBatch:         {BatchIndependent, BatchAlone},
	OptionDeterministic: {DeterministicYes, DeterministicNo},
}

// CheckOptions refuses options for an engine that are none of those that it knows.
func CheckOptions(options map[string]string, known []string) error {
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if !slices.Contains(known, name) {
			all := append(slices.Sorted(maps.Keys(workerOptions)), known...)
			slices.Sort(all)
			return fmt.Errorf("option %s=%s: there is no such option of this engine; there are %s", name, options[name], strings.Join(all, ", "))
		}
	}
	return nil
}

// SplitOptions tells a Model's options for the engine from those that every worker
// knows. It refuses values that the latter do not have.
func SplitOptions(all map[string]string) (engine, worker map[string]string, err error) {
	engine, worker = maps.Clone(all), map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(workerOptions)) {
		value, ok := all[name]
		if !ok {
			continue
		}
		if allowed := workerOptions[name]; !slices.Contains(allowed, value) {
			return nil, nil, fmt.Errorf("option %s=%s: choose %s", name, value, strings.Join(allowed, " or "))
		}
		delete(engine, name)
		worker[name] = value
	}
	return engine, worker, nil
}
