package worker

import (
	"strings"
	"testing"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

func TestStateBatch(t *testing.T) {
	meta := func(first int64, batch bool) *channel.Metadata {
		spec := []tensor.Spec{{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{first, 4}}}
		return &channel.Metadata{Inputs: spec, Outputs: spec, Batch: batch}
	}
	for _, test := range []struct {
		stated        string
		first         int64
		proven, batch bool
		err           string
	}{
		{"", -1, true, true, ""}, {"", -1, false, false, ""},
		{"independent", -1, false, true, ""}, {"alone", -1, true, false, ""},
		{"independent", 1, false, false, "has no open first dimension"},
	} {
		m := meta(test.first, test.proven)
		err := stateBatch(m, test.stated)
		if m.Batch != test.batch || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%+v: got %v, %v", test, m.Batch, err)
		}
	}
}
