package cli

import (
	"strings"
	"testing"

	"oscine.dev/oscine/internal/serve/oip"
	"oscine.dev/oscine/internal/tensor"
)

// Texts are no scores of a picture.
func TestScoresAreNumbers(t *testing.T) {
	texts := oip.Tensor{Spec: tensor.Spec{Name: "label", Type: tensor.Bytes, Shape: tensor.Shape{1}}, Data: []byte("\x01\x00\x00\x00a")}
	if _, err := floats(texts); err == nil || !strings.Contains(err.Error(), "holds BYTES, not scores") {
		t.Errorf("got %v", err)
	}
}
