package triton

import (
	"os"
	"strings"
	"testing"
)

// A configuration must say of an ONNX model what that says of itself.
func TestConfigurationsAreCompared(t *testing.T) {
	model, err := os.ReadFile("../../../models/digits/digits.onnx")
	if err != nil {
		t.Fatal(err)
	}
	for config, want := range map[string]string{
		"": "",
		`max_batch_size: 8 input { name: "image" data_type: TYPE_FP32 dims: [ 1, 28, 28 ] }`:                        "",
		`input { name: "image" data_type: TYPE_FP32 dims: [ -1, 1, 28, 28 ] }`:                                      "",
		`max_batch_size: 8 input { name: "image" dims: [ 784 ] reshape { shape: [ 1, 28, 28 ] } }`:                  "",
		`input { name: "nope" data_type: TYPE_FP32 dims: [ -1, 1, 28, 28 ] }`:                                       `input "nope": the model has none of that name, it has image`,
		`input { name: "image" data_type: TYPE_INT8 dims: [ -1, 1, 28, 28 ] }`:                                      `input "image" is TYPE_INT8, in the model it is TYPE_FP32`,
		`max_batch_size: 8 input { name: "image" data_type: TYPE_FP32 dims: [ 1, 28, 29 ] }`:                        `input "image" has the dims [1 28 29], which with max_batch_size 8 are [-1 1 28 29]; in the model it has`,
		`input { name: "image" data_type: TYPE_FP32 dims: [ 28, 28 ] }`:                                             `input "image" has the dims [28 28]`,
		`output { name: "y" data_type: TYPE_FP32 dims: [ 10 ] }`:                                                    `output "y": the model has none of that name`,
		`sequence_batching { state { input_name: "image" output_name: "none" data_type: TYPE_INT64 dims: [ 1 ] } }`: `sequence_batching.state.input_name "image" is TYPE_INT64, in the model it is TYPE_FP32`,
		`sequence_batching { state { input_name: "image" output_name: "none" } }`:                                   `sequence_batching.state.output_name "none": the model has none`,
	} {
		dir := repository(t, map[string]string{"m/1/model.onnx": string(model), "m/config.pbtxt": config})
		_, err := Read(dir, nil)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v,\nwant %s", config, err, want)
		}
	}
}
