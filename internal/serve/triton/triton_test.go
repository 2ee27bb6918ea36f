package triton

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"oscine.dev/oscine/internal/object"
	pb "oscine.dev/oscine/internal/serve/triton/modelconfigpb"
)

// repository writes files, "/" at the end for a folder, and returns their folder.
func repository(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o700); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// spec is a model's specification as JSON, without what it does not say.
func spec(t *testing.T, m *object.Model) string {
	t.Helper()
	text, err := json.Marshal(m.Spec)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestRead(t *testing.T) {
	for _, c := range []struct {
		what, config string
		files        map[string]string // beside 1/model.onnx, where there are none
		want         string
	}{
		{"nothing said", "", nil, `{"format":".onnx","version":"1"}`},
		{"batches", `platform: "onnxruntime_onnx" max_batch_size: 8 dynamic_batching { preferred_batch_size: [ 8, 4 ] max_queue_delay_microseconds: 100 }`, nil,
			`{"format":".onnx","version":"1","dynamicBatching":{"preferredBatchSizes":[4,8],"maxBatchSize":8,"maxQueueDelay":"100µs"}}`},
		{"batches of a model without", `max_batch_size: 0 dynamic_batching { }`, nil, `{"format":".onnx","version":"1"}`},
		{"a default timeout", `max_batch_size: 2 dynamic_batching { default_queue_policy { default_timeout_microseconds: 5000 allow_timeout_override: true } }`, nil,
			`{"format":".onnx","version":"1","defaultTimeout":"5ms","dynamicBatching":{"maxBatchSize":2}}`},
		{"a default timeout without batches", `dynamic_batching { default_queue_policy { default_timeout_microseconds: 5000 } preferred_batch_size: 4 }`, nil, `{"format":".onnx","version":"1","defaultTimeout":"5ms"}`},
		{"a cache", `response_cache { enable: true }`, nil, `{"format":".onnx","version":"1","responseCache":{"size":"64Mi"}}`},
		{"a state", `max_batch_size: 1 sequence_batching { max_sequence_idle_microseconds: 5000000 direct { } state [ { input_name: "s" output_name: "t" data_type: TYPE_FP32 dims: [ 2, 64 ] initial_state { data_type: TYPE_FP32 dims: [ 2, 64 ] zero_data: true name: "zero" } } ] }`, nil,
			`{"format":".onnx","version":"1","sequenceBatching":{"state":[{"inputName":"s","outputName":"t","dims":[1,2,64]}],"maxSequenceIdle":"5s"}}`},
		{"a state without batches", `sequence_batching { state [ { input_name: "s" output_name: "t" dims: [ 2, 64 ] }, { input_name: "u" output_name: "v" dims: [ -1 ] } ] }`, nil,
			`{"format":".onnx","version":"1","sequenceBatching":{"state":[{"inputName":"s","outputName":"t","dims":[2,64]},{"inputName":"u","outputName":"v"}]}}`},
		{"PyTorch", `platform: "pytorch_libtorch" max_batch_size: 4 input [ { name: "B__1" data_type: TYPE_INT64 dims: [ 1 ] }, { name: "A__0" data_type: TYPE_FP32 dims: [ -1, 3 ] } ] output { name: "OUT__0" data_type: TYPE_STRING dims: 2 }`, map[string]string{"1/model.pt": "x"},
			`{"format":".pt","options":{"inputs":"A__0:FP32[-1,-1,3] B__1:INT64[-1,1]","outputs":"OUT__0:BYTES[-1,2]"},"version":"1"}`},
		{"another file", `default_model_filename: "net.onnx"`, map[string]string{"1/net.onnx": "x"}, `{"format":".onnx","version":"1"}`},
		{"TensorFlow", `platform: "tensorflow_savedmodel" parameters { key: "TF_SIGNATURE_DEF" value { string_value: "predict" } }`, map[string]string{"1/model.savedmodel/saved_model.pb": "x"},
			`{"options":{"signature":"predict"},"version":"1"}`},
		{"threads", `backend: "onnxruntime" parameters { key: "intra_op_thread_count" value: { string_value: "2" } }`, nil, `{"format":".onnx","version":"1","resources":{"cpu":"2"}}`},
		{"an ensemble", `platform: "ensemble" input { name: "picture" data_type: TYPE_FP32 dims: 4 } output { name: "chances" data_type: TYPE_FP32 dims: 4 }
			ensemble_scheduling { step [ { model_name: "a_b" model_version: -1 input_map { key: "x" value: "picture" } output_map { key: "y" value: "scores" } },
			{ model_name: "softmax" model_version: 2 input_map { key: "x" value: "scores" } output_map { key: "y" value: "chances" } } ] }`, map[string]string{"1/": ""},
			`{"ensemble":{"steps":[{"modelName":"a_b","inputMap":{"x":"picture"},"outputMap":{"y":"scores"}},{"modelName":"softmax","modelVersion":"2","inputMap":{"x":"scores"},"outputMap":{"y":"chances"}}],"outputs":["chances"]},"version":"1"}`},
		{"the newest version", "", map[string]string{"1/model.onnx": "x", "10/model.onnx": "x", "9/model.onnx": "x", "011/model.onnx": "x", "notes/x": "x"}, `{"format":".onnx","version":"10"}`},
		{"Triton's densenet", `name: "m" platform: "onnxruntime_onnx" max_batch_size : 0
			input [ { name: "data_0" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 224, 224 ] reshape { shape: [ 1, 3, 224, 224 ] } } ]
			output [ { name: "fc6_1" data_type: TYPE_FP32 dims: [ 1000 ] reshape { shape: [ 1, 1000, 1, 1 ] } label_filename: "densenet_labels.txt" } ]`, nil,
			`{"format":".onnx","version":"1","reshape":{"inputs":{"data_0":{"dims":[3,224,224],"shape":[1,3,224,224]}},"outputs":{"fc6_1":{"dims":[1000],"shape":[1,1000,1,1]}}}}`},
		{"a row of nothing", `max_batch_size: 4 input { name: "x" data_type: TYPE_FP32 dims: 1 reshape { } }`, nil, `{"format":".onnx","version":"1","reshape":{"inputs":{"x":{"dims":[-1,1],"shape":[-1]}}}}`},
		{"PyTorch's own shapes", `backend: "pytorch" input { name: "x" data_type: TYPE_FP32 dims: 4 reshape { shape: [ 2, 2 ] } } output { name: "y" data_type: TYPE_FP32 dims: 1 }`, map[string]string{"1/model.pt": "x"},
			`{"format":".pt","options":{"inputs":"x:FP32[2,2]","outputs":"y:FP32[1]"},"version":"1","reshape":{"inputs":{"x":{"dims":[4],"shape":[2,2]}}}}`},
		{"a GPU", `instance_group { count: 1 kind: KIND_GPU gpus: [ 0 ] }`, nil, `{"format":".onnx","version":"1","resources":{"devices":[{"name":"gpu","selector":"device.driver == \"gpu.nvidia.com\""}]}}`},
		{"instances", `instance_group [ { count: 2 kind: KIND_CPU }, { } ]`, nil, `{"format":".onnx","version":"1","instances":3}`},
		{"a GPU for each", `instance_group { kind: KIND_GPU gpus: [ 0, 1 ] }`, nil, `{"format":".onnx","version":"1","instances":2,"resources":{"devices":[{"name":"gpu","selector":"device.driver == \"gpu.nvidia.com\""}]}}`},
		{"several on each GPU", `instance_group { count: 3 gpus: [ 0, 2 ] }`, nil, `{"format":".onnx","version":"1","instances":6,"resources":{"devices":[{"name":"gpu","selector":"device.driver == \"gpu.nvidia.com\"","fraction":{"share":"333m"}}]}}`},
		{"GPUs unnamed", `instance_group { count: 2 kind: KIND_GPU }`, nil, `{"format":".onnx","version":"1","instances":2,"resources":{"devices":[{"name":"gpu","selector":"device.driver == \"gpu.nvidia.com\""}]}}`},
		{"hints", `optimization { graph { level: 1 } input_pinned_memory { enable: true } } instance_group [ { count: 1 kind: KIND_CPU } ] model_warmup [ { name: "w" batch_size: 1 } ]`, nil, `{"format":".onnx","version":"1"}`},
	} {
		files := map[string]string{"m/config.pbtxt": c.config}
		if c.files == nil {
			c.files = map[string]string{"1/model.onnx": "x"}
		}
		for name, text := range c.files {
			files["m/"+name] = text
		}
		dir := repository(t, files)
		if c.what == "nothing said" {
			if err := os.Remove(filepath.Join(dir, "m", ConfigFile)); err != nil {
				t.Fatal(err)
			}
		}
		got, err := Read(dir, nil)
		if err != nil || len(got) != 1 {
			t.Errorf("%s: got %d models, %v", c.what, len(got), err)
			continue
		}
		m := &got[0].Model
		if text := spec(t, m); m.Metadata.Name != "m" || text != c.want {
			t.Errorf("%s: got %s %s,\nwant %s", c.what, m.Metadata.Name, text, c.want)
		}
		alone, err := Read(filepath.Join(dir, "m"), nil)
		if err != nil || len(alone) != 1 || spec(t, &alone[0].Model) != c.want {
			t.Errorf("%s, by its own folder: got %v, %v", c.what, alone, err)
		}
		if c.what == "a default timeout without batches" && strings.Join(got[0].Without, " ") != "dynamic_batching.preferred_batch_size" {
			t.Errorf("without %q", got[0].Without)
		}
		if c.what == "hints" && strings.Join(got[0].Without, " ") != "model_warmup optimization.graph optimization.input_pinned_memory" {
			t.Errorf("without %q", got[0].Without)
		}
	}
}

func TestVersionsAndNames(t *testing.T) {
	dir := repository(t, map[string]string{
		"Densenet_ONNX/config.pbtxt": `version_policy: { all { } }`, "Densenet_ONNX/1/model.onnx": "x", "Densenet_ONNX/3/model.onnx": "x",
		"some/config.pbtxt": `version_policy: { specific { versions: [ 2, 1, 2 ] } }`, "some/1/model.onnx": "x", "some/2/model.onnx": "x", "some/3/model.onnx": "x",
		"two/config.pbtxt": `version_policy: { latest { num_versions: 2 } }`, "two/2/model.onnx": "x", "two/3/model.onnx": "x", "two/4/model.onnx": "x",
		"Tab.X/1/model.xml": "x", "Tab.X/1/model.bin": "x", ".git/x": "x",
	})
	got, err := Read(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, v := range got {
		m := v.Model
		rel, _ := filepath.Rel(dir, v.Source)
		list = append(list, strings.Join([]string{m.Metadata.Name, m.Spec.ServedAs, m.Spec.Version, rel}, " "))
	}
	want := []string{
		"densenet-onnx-v1 Densenet_ONNX 1 Densenet_ONNX/1/model.onnx", "densenet-onnx-v3 Densenet_ONNX 3 Densenet_ONNX/3/model.onnx", "tab-x Tab.X 1 Tab.X/1/model.xml",
		"some-v1 some 1 some/1/model.onnx", "some-v2 some 2 some/2/model.onnx", "two-v3 two 3 two/3/model.onnx", "two-v4 two 4 two/4/model.onnx",
	}
	if strings.Join(list, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(list, "\n"), strings.Join(want, "\n"))
	}
	if !Is(dir) || !Is(filepath.Join(dir, "some")) || Is(filepath.Join(dir, "some", "1")) || Is(filepath.Join(dir, "none")) {
		t.Error("a repository is not known from other folders")
	}
}

func TestRefused(t *testing.T) {
	for config, want := range map[string]string{
		"max_batch_size: eight":                                          "config.pbtxt: (line 1:17): invalid value for int32 type: eight",
		"max_batch: 8":                                                   `config.pbtxt: (line 1:1): unknown field: max_batch`,
		`name: "other"`:                                                  `name is "other": it must be the name of the folder`,
		`backend: "python"`:                                              `no pack of Oscine runs models of the backend "python"`,
		`platform: "tensorrt_plan"`:                                      `no pack of Oscine runs models of the backend "tensorrt_plan"`,
		`default_model_filename: "../x.onnx"`:                            `default_model_filename "../x.onnx" leads out of the version's folder`,
		`default_model_filename: "none.onnx"`:                            "holds none of none.onnx",
		`version_policy { specific { versions: 7 } }`:                    "version_policy asks for version 7, and there is no folder",
		`instance_group { count: 33 kind: KIND_CPU }`:                    "instance_group.count is not supported: 33 instances: a model has at most 32; --ignore instance_group.count imports",
		`instance_group [ { kind: KIND_GPU }, { kind: KIND_CPU } ]`:      "instance_group.kind is not supported: some instances on CPUs and some on GPUs",
		`max_batch_size: 8 input { name: "x" allow_ragged_batch: true }`: "input.allow_ragged_batch is not supported",
		`sequence_batching { oldest { max_candidate_sequences: 4 } state { input_name: "a" output_name: "b" } }`: "sequence_batching.oldest is not supported: sequences are computed each by itself, as with direct",
		`sequence_batching { direct { } }`: "sequence_batching is not supported: it names no state",
		`sequence_batching { control_input { name: "START" } state { input_name: "a" output_name: "b" } }`:                      "sequence_batching.control_input is not supported",
		`model_transaction_policy { decoupled: true }`:                                                                          "model_transaction_policy.decoupled is not supported",
		`optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" } } }`:                            "optimization.execution_accelerators is not supported",
		`parameters { key: "execute_mode" value { string_value: "1" } }`:                                                        "parameters.execute_mode is not supported",
		`parameters { key: "intra_op_thread_count" value { string_value: "many" } }`:                                            "must be a number of threads",
		`max_batch_size: 2 dynamic_batching { preferred_batch_size: 4 }`:                                                        "preferred_batch_size 4: must be from 1 to max_batch_size, which is 2",
		`max_batch_size: 2 dynamic_batching { default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 1 } }`: "timeout_action is not supported: DELAY",
		`max_batch_size: 2 dynamic_batching { priority_levels: 4 default_priority_level: 2 }`:                                   "default_priority_level is not supported",
		`max_batch_size: -1`:   "max_batch_size is -1: it must be 0",
		`platform: "onnx"`:     `there is no backend "onnx": write backend: "onnxruntime"`,
		`platform: "ensemble"`: "is an ensemble without steps",
		`ensemble_scheduling { step { model_name: "a" input_map { key: "x" value: "raw" } output_map { key: "y" value: "out" } } } input { name: "zz" }`: `input "zz" is taken by no step`,
		`sequence_batching { max_sequence_idle_microseconds: 5 state { input_name: "a" output_name: "b" } }`:                                             "max_sequence_idle_microseconds is not supported: 5",
		`sequence_batching { state { input_name: "a" output_name: "b" data_type: TYPE_FP32 initial_state { data_type: TYPE_INT64 zero_data: true } } }`:  "its initial_state TYPE_INT64",
		`platform: "pytorch_libtorch"`: "has no input: PyTorch's models do not tell them",
	} {
		dir := repository(t, map[string]string{"m/1/model.onnx": "x", "m/config.pbtxt": config})
		if _, err := Read(dir, nil); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "model m: ") {
			t.Errorf("%s: got %v,\nwant %s", config, err, want)
		}
	}
	for files, want := range map[string]string{
		"":                                  "has 0 folders",
		"m/model.onnx":                      "model m: has no version",
		"m/1/other.bin":                     "version 1 has no model",
		"--/1/model.onnx":                   "model --: the name of the folder has no letter or digit",
		"a_b/1/model.onnx a.b/1/model.onnx": "would both be model a-b",
	} {
		all := map[string]string{}
		for name := range strings.FieldsSeq(files) {
			all[name] = "x"
		}
		if _, err := Read(repository(t, all), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", files, err, want)
		}
	}
}

// What is ignored is left out, by its own name or by that of what holds it, and
// said; all mistakes are told at once.
func TestIgnored(t *testing.T) {
	config := `instance_group [ { count: 40 kind: KIND_GPU gpus: [ 0 ] } ] parameters { key: "a" value { string_value: "1" } }`
	dir := repository(t, map[string]string{"m/1/model.onnx": "x", "m/config.pbtxt": config, "n/1/model.onnx": "x", "n/config.pbtxt": `runtime: "x"`})
	_, err := Read(dir, []string{"instance_group.kind"})
	if err == nil || strings.Contains(err.Error(), "instance_group.kind") || strings.Count(err.Error(), "not supported") != 3 {
		t.Errorf("got %v, want three fields", err)
	}
	if _, err := Read(dir, []string{"instance_group", "instance_groups.count"}); err == nil || !strings.Contains(err.Error(), "--ignore instance_groups.count: config.pbtxt has no such field") {
		t.Errorf("a field that there is not: got %v", err)
	}
	got, err := Read(dir, []string{"instance_group", "parameters.a", "runtime"})
	if err != nil || strings.Join(got[0].Without, " ") != "instance_group.count instance_group.kind parameters.a" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A field of the definitions that is in no table would be refused without a reason.
func TestFieldsAreDecided(t *testing.T) {
	known := map[string]bool{}
	var visit func(d protoreflect.MessageDescriptor, above string)
	visit = func(d protoreflect.MessageDescriptor, above string) {
		for i := range d.Fields().Len() {
			f := d.Fields().Get(i)
			field := strings.TrimPrefix(above+"."+string(f.Name()), ".")
			known[field] = true
			switch fields[field] {
			case "":
				t.Errorf("%s is not decided", field)
			case within:
				visit(f.Message(), field)
			}
		}
	}
	visit((&pb.ModelConfig{}).ProtoReflect().Descriptor(), "")
	for field := range fields {
		if !known[field] {
			t.Errorf("there is no field %s", field)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`platform: "onnxruntime_onnx" max_batch_size: 8 input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] reshape { shape: [ 1, 3 ] } } ] dynamic_batching { preferred_batch_size: 4 }`)
	f.Add(`platform: "ensemble" ensemble_scheduling { step { model_name: "a" input_map { key: "x" value: "y" } } }`)
	f.Add(`sequence_batching { state { dims: [ 9223372036854775807, -1 ] } max_sequence_idle_microseconds: 18446744073709551615 }`)
	f.Add(`backend: "pytorch" instance_group { count: -5 } parameters { key: "intra_op_thread_count" value { string_value: "3" } }`)
	f.Fuzz(func(t *testing.T, text string) {
		config := &pb.ModelConfig{}
		if parse([]byte(text), config) != nil {
			return
		}
		r := &reading{name: "m", config: config}
		r.model()
	})
}
