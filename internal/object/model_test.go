package object

import (
	"strings"
	"testing"
	"time"
)

func TestModelsServing(t *testing.T) {
	head := "apiVersion: oscine.dev/v1\nkind: Model\nmetadata: {name: m}\nspec:\n  source: sha256:" + strings.Repeat("0", 64) + "\n"
	for lines, want := range map[string]string{
		"  servedAs: Digits_v1.5\n  timeout: 10m\n": "",
		"  servedAs: _private\n":                    "",
		"  servedAs: a/b\n":                         "spec.servedAs: must be letters",
		"  servedAs: .x\n":                          "spec.servedAs: must be letters",
		"  timeout: -1s\n":                          "spec.timeout",
		"  responseCache: {size: 64Mi}\n":           "",
		"  responseCache: {}\n":                     "spec.responseCache.size: must be bytes from 4Ki to 1Gi",
		"  responseCache: {size: 2Gi}\n":            "spec.responseCache.size: must be bytes from 4Ki to 1Gi",
		"  sequenceBatching: {state: [{inputName: a, outputName: b, dims: [2, 1]}], maxSequences: 9}\n": "",
		"  sequenceBatching: {}\n":                                                                     "spec.sequenceBatching.state: must have 1 to 16 entries",
		"  sequenceBatching: {state: [{inputName: a}]}\n":                                              "inputName and an outputName",
		"  sequenceBatching: {state: [{inputName: a, outputName: b, dims: [0]}]}\n":                    "must be numbers from 1",
		"  sequenceBatching: {state: [{inputName: a, outputName: b}], maxSequences: 5000}\n":           "must be from 1 to 4096",
		"  responseCache: {size: 1Mi}\n  sequenceBatching: {state: [{inputName: a, outputName: b}]}\n": "leave out one of them",
		"  dynamicBatching: {maxBatchSize: 8, preferredBatchSizes: [8]}\n  defaultTimeout: 1s\n":       "",
		"  dynamicBatching: {maxBatchSize: -1}\n":                                                      "spec.dynamicBatching.maxBatchSize: must be from 1",
		"  dynamicBatching: {maxBatchSize: 8, preferredBatchSizes: [9]}\n":                             "9 is more than maxBatchSize, which is 8",
		"  dynamicBatching: {maxBatchSize: 8, disabled: true}\n":                                       "cannot be combined",
		"  load: onDemand\n  idleTimeout: 30s\n  defaultTimeout: 1s\n":                                 "",
		"  load: always\n  defaultTimeout: 1s\n":                                                       "",
		"  reshape: {inputs: {x: {dims: [-1, 3], shape: [-1, 1, 3]}}}\n  defaultTimeout: 1s\n":         "",
		"  reshape: {outputs: {x: {dims: [-1, 3], shape: [1, 3]}}}\n":                                  "spec.reshape.outputs: \"x\": dims and shape must be",
		"  reshape: {inputs: {x: {dims: [4], shape: [2, 3]}}}\n":                                       "spec.reshape.inputs: \"x\": dims and shape must be",
		"  reshape: {}\n  sequenceBatching: {state: [{inputName: a, outputName: b}]}\n":                "spec.reshape: cannot be combined",
		"  load: lazily\n":                                               "spec.load: must be always or onDemand",
		"  idleTimeout: 30s\n":                                           "spec.idleTimeout: is only for load: onDemand",
		"  load: onDemand\n  idleTimeout: 1ms\n":                         "spec.idleTimeout: must be from 1s to 168h",
		"  load: onDemand\n  resources: {gang: {name: a, size: 2}}\n":    "spec.load: a gang is placed together",
		"  defaultTimeout: 200ms\n":                                      "",
		"  defaultTimeout: 2h\n":                                         "spec.defaultTimeout: must be from 1ms to 1h",
		"  timeout: 0s\n":                                                "spec.timeout: must be from 1ms to 24h0m0s, got 0s",
		"  defaultTimeout: 0s\n":                                         "spec.defaultTimeout: must be from 1ms to 1h",
		"  load: onDemand\n  idleTimeout: 0s\n":                          "spec.idleTimeout: must be from 1s to 168h",
		"  maxRequest: 0\n":                                              "spec.maxRequest: must be bytes from 4Ki",
		"  responseCache: {size: 0}\n":                                   "spec.responseCache.size: must be bytes from 4Ki",
		"  dynamicBatching: {maxBatchSize: 0}\n":                         "spec.dynamicBatching.maxBatchSize: must be from 1 to 65536, got 0",
		"  dynamicBatching: {preferredBatchSizes: [0]}\n":                "spec.dynamicBatching.preferredBatchSizes: must ascend, from 1",
		"  dynamicBatching: {maxQueueDelay: 0s}\n  defaultTimeout: 1s\n": "",
		"  sequenceBatching: {state: [{inputName: a, outputName: b}], maxSequences: 0}\n":     "spec.sequenceBatching.maxSequences: must be from 1 to 4096, got 0",
		"  sequenceBatching: {state: [{inputName: a, outputName: b}], maxSequenceIdle: 0s}\n": "spec.sequenceBatching.maxSequenceIdle: must be from 1ms",
		"  traffic: 0\n  defaultTimeout: 1s\n":                                                "",
		"  traffic: -1\n":                                                                     "spec.traffic: must be a percentage",
		"  resources: {cpu: 0}\n":                                                             "spec.resources.cpu: must be more than 0",
		"  resources: {memory: 0}\n":                                                          "spec.resources.memory: must be at least 1Mi",
		"  resources: {pids: 0}\n":                                                            "spec.resources.pids: must be from 1",
		"  resources: {latency: 0s}\n":                                                        "spec.resources.latency: must be from 1µs",
		"  resources: {devices: [{name: a, count: 0}]}\n":                                     "spec.resources.devices[0].count: must be from 1",
		"  resources: {cpuLimit: 0}\n":                                                        "spec.resources.cpuLimit: must be at least cpu",
		"  resources: {ephemeralStorage: 0}\n":                                                "spec.resources.ephemeralStorage: must be at least 1Mi",
		"  version: a b\n":                                                                    "spec.version: must be letters, digits, '.', '_' or '-', at most 63, got \"a b\"",
		"  version: 1.2-rc_3\n  defaultTimeout: 1s\n":                                         "",
		"  timeout: 25h\n":                                                                    "spec.timeout: must be from 1ms to 24h",
	} {
		objects, err := Kinds().Parse(strings.NewReader(head + lines))
		if want != "" {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: got %v, want %s", lines, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", lines, err)
			continue
		}
		if m := objects[0].(*Model); m.Spec.ServedAs == "" && m.Spec.DefaultTimeout == 0 && m.Spec.ResponseCache == nil && m.Spec.SequenceBatching == nil || m.Spec.Timeout != 0 && m.Spec.Timeout.Std() != 10*time.Minute {
			t.Errorf("%q: %+v", lines, m.Spec)
		}
	}
}

func TestEnsembles(t *testing.T) {
	head := "apiVersion: oscine.dev/v1\nkind: Model\nmetadata: {name: m}\nspec:\n"
	step := "  ensemble: {steps: [{modelName: a, inputMap: {x: raw}, outputMap: {y: out}}]}\n"
	for lines, want := range map[string]string{
		step: "",
		step + "  traffic: 10\n  defaultTimeout: 1s\n  servedAs: A_b\n":                                      "",
		step + "  engine: onnxruntime\n":                                                                     "spec.engine: an ensemble has no worker",
		step + "  resources: {cpu: 2}\n":                                                                     "spec.resources: an ensemble has no worker",
		step + "  source: sha256:" + strings.Repeat("0", 64) + "\n":                                          "spec.source: an ensemble has no worker",
		"  ensemble: {steps: []}\n":                                                                          "spec.ensemble: needs 1 to 64 steps",
		"  ensemble: {steps: [{modelName: a, inputMap: {x: y}, outputMap: {y: y}}]}\n":                       "spec.ensemble: step 1 (a): each waits for an output of another one, or of itself: a cycle",
		"  ensemble: {steps: [{modelName: a, inputMap: {x: raw}, outputMap: {y: out}}], outputs: [other]}\n": "spec.ensemble: output \"other\" is no step's output",
		"  class: interactive\n":                                                                             "spec.source: must be",
	} {
		objects, err := Kinds().Parse(strings.NewReader(head + lines))
		switch {
		case want == "" && err == nil:
			if cpu := objects[0].(*Model).Spec.Resources.CPU; !cpu.IsZero() {
				t.Errorf("%s: it takes cpu %s", lines, cpu)
			}
		case want == "" || err == nil || !strings.Contains(err.Error(), want):
			t.Errorf("%s: got %v, want %s", lines, err, want)
		}
	}
}
