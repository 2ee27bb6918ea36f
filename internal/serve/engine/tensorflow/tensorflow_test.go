package tensorflow

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"

	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

func field(n protowire.Number, value ...[]byte) []byte {
	b := protowire.AppendTag(nil, n, protowire.BytesType)
	var all []byte
	for _, v := range value {
		all = append(all, v...)
	}
	return protowire.AppendBytes(b, all)
}

func number(n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
}

// info is an entry of the inputs (1) or outputs (2) of a signature.
func info(kind protowire.Number, name, place string, dtype uint64, dims ...int64) []byte {
	var shape [][]byte
	for _, d := range dims {
		shape = append(shape, field(2, number(1, uint64(d))))
	}
	return field(kind, field(1, []byte(name)), field(2, field(1, []byte(place)), number(2, dtype), field(3, shape...)))
}

// graph is a MetaGraphDef with one signature.
func graph(key string, parts ...[]byte) []byte {
	return field(5, field(1, []byte(key)), field(2, parts...))
}

func TestSignature(t *testing.T) {
	good := append(graph("serving_default", info(1, "b", "in_b:0", 9), info(1, "a", "in_a", 1, -1, 4), info(2, "y", "call:2", 1, -1)), graph("__saved_model_init_op", info(2, "i", "init", 1))...)
	for _, key := range []string{"", "serving_default"} {
		s, err := findSignature(good, key)
		if err != nil {
			t.Fatal(err)
		}
		want := &signature{
			inputs: []endpoint{
				{tensor.Spec{Name: "a", Type: tensor.FP32, Shape: tensor.Shape{-1, 4}}, "in_a", 0},
				{tensor.Spec{Name: "b", Type: tensor.Int64, Shape: tensor.Shape{}}, "in_b", 0},
			},
			outputs: []endpoint{{tensor.Spec{Name: "y", Type: tensor.FP32, Shape: tensor.Shape{-1}}, "call", 2}},
		}
		if diff := cmp.Diff(want, s, cmp.AllowUnexported(signature{}, endpoint{})); diff != "" {
			t.Error(diff)
		}
	}
	for want, bad := range map[string][]byte{
		`no signature "": it has []`:            nil,
		"is damaged":                            good[:20],
		"TensorFlow's type 7, which cannot be":  graph("k", info(1, "s", "s", 7), info(2, "y", "y", 1)),
		"from one output to":                    graph("k", info(1, "s", "s", 1)),
		"is no tensor of the graph":             graph("k", info(2, "y", "", 1)),
		"invalid syntax":                        graph("k", info(2, "y", "y:x", 1)),
		"has no fixed number of dimensions":     graph("k", field(2, field(1, []byte("y")), field(2, field(1, []byte("y")), number(2, 1), field(3, number(3, 1))))),
		`it has ["one" "two"]: name one by the`: append(graph("one", info(2, "y", "y", 1)), graph("two", info(2, "y", "y", 1))...),
	} {
		if _, err := findSignature(bad, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func FuzzSignature(f *testing.F) {
	f.Add(graph("serving_default", info(1, "a", "in_a", 1, -1, 4), info(2, "y", "call:2", 1, -1)), "")
	f.Fuzz(func(t *testing.T, text []byte, key string) {
		s, err := findSignature(text, key)
		if err != nil {
			return
		}
		for _, e := range append(s.inputs, s.outputs...) {
			if e.operation == "" || e.index < 0 || !e.Type.Valid() || len(e.Shape) > tensor.MaxRank {
				t.Errorf("accepted %+v", e)
			}
		}
	})
}

// What is no folder of a SavedModel is refused before the library is loaded.
func TestRefusals(t *testing.T) {
	file := filepath.Join(t.TempDir(), "saved_model.pb")
	if err := os.WriteFile(file, []byte("\x08\x01"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{file: "serve that", t.TempDir(): "not a model that TensorFlow can load", "/nowhere": "no such file"} {
		if _, err := (&Engine{library: "/nowhere"}).Open(path, worker.Options{Threads: 1}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
	}
}
