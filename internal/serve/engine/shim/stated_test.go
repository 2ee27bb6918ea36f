package shim

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/tensor"
)

func TestParseSpecs(t *testing.T) {
	got, err := ParseSpecs(" sound:FP32[-1,512]  rate:INT64[] a.b/c:0:BOOL[0]")
	if err != nil {
		t.Fatal(err)
	}
	want := []tensor.Spec{
		{Name: "sound", Type: tensor.FP32, Shape: tensor.Shape{-1, 512}}, {Name: "rate", Type: tensor.Int64, Shape: tensor.Shape{}},
		{Name: "a.b/c:0", Type: tensor.Bool, Shape: tensor.Shape{0}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got, err := ParseSpecs(""); got != nil || err != nil {
		t.Errorf("nothing: got %v, %v", got, err)
	}
	for text, want := range map[string]string{
		"sound":                   "must be NAME:TYPE[DIMENSION,…]",
		"sound:FP32":              "must be NAME:TYPE[DIMENSION,…]",
		"sound:FP32[1, 2]":        "must be NAME:TYPE[DIMENSION,…]",
		"sound:FLOAT[1]":          `datatype "FLOAT" is not supported`,
		"words:BYTES[1]":          "PyTorch has no elements of BYTES",
		"sound:FP32[-2]":          `the dimension "-2" is neither`,
		"sound:FP32[1,]":          `the dimension "" is neither`,
		"sound:FP32[99999999999]": "is neither a size nor -1",
		"a:FP32[] a:FP32[]":       "there is another of that name",
		"a:FP32[" + strings.Repeat("1,", tensor.MaxRank) + "1]": "has 17 dimensions",
	} {
		if _, err := ParseSpecs(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

func TestAgree(t *testing.T) {
	spec := func(text string) tensor.Spec {
		list, err := ParseSpecs("x:" + text)
		if err != nil {
			t.Fatal(err)
		}
		return list[0]
	}
	for _, test := range []struct {
		stated, told string
		open, ok     bool
	}{
		{"FP32[1,4]", "FP32[1,4]", false, true}, {"FP32[1,4]", "FP32[8,4]", true, true}, {"FP32[-1,4]", "FP32[8,4]", true, true},
		{"FP32[-1,4]", "FP32[8,4]", false, false}, {"FP32[9,4]", "FP32[8,4]", true, false}, {"FP32[8]", "FP32[8,4]", true, false},
		{"FP64[8,4]", "FP32[8,4]", true, false}, {"INT64[]", "INT64[]", false, true},
	} {
		if err := agree(spec(test.stated), spec(test.told), test.open); (err == nil) != test.ok {
			t.Errorf("%s of %s, open %v: got %v", test.stated, test.told, test.open, err)
		}
	}
}

func FuzzParseSpecs(f *testing.F) {
	f.Add("sound:FP32[-1,512] rate:INT64[]")
	f.Fuzz(func(t *testing.T, text string) {
		specs, err := ParseSpecs(text)
		if err != nil {
			return
		}
		for _, s := range specs {
			if s.Name == "" || elementOf(s.Type) < 0 || len(s.Shape) > tensor.MaxRank {
				t.Errorf("accepted %+v", s)
			}
		}
	})
}
