package language

import (
	"errors"
	"testing"

	"oscine.dev/oscine/internal/tensor"
)

func TestIs(t *testing.T) {
	if !Is(Inputs(), Outputs()) {
		t.Error("a language model is none")
	}
	image := []tensor.Spec{{Name: "image", Type: tensor.FP32, Shape: tensor.Shape{-1, 784}}}
	if Is(image, Outputs()) || Is(Inputs(), image) || Is(nil, nil) || Is(Outputs(), Inputs()) {
		t.Error("another model is a language model")
	}
}

func TestTensors(t *testing.T) {
	text, err := Text(AppendText(nil, []byte("žluť")))
	if err != nil || string(text) != "žluť" {
		t.Errorf("got %q, %v", text, err)
	}
	if code, err := Code(AppendCode(nil, 429)); err != nil || code != 429 {
		t.Errorf("got %d, %v", code, err)
	}
	for _, data := range [][]byte{nil, {1, 2}, AppendCode(nil, 7), AppendCode(nil, -200), AppendCode(nil, 600)} {
		if _, err := Code(data); !errors.Is(err, ErrTensor) {
			t.Errorf("status %x: got %v", data, err)
		}
	}
	for _, data := range [][]byte{nil, {9, 0, 0, 0, 'x'}, append(AppendText(nil, nil), 1)} {
		if _, err := Text(data); !errors.Is(err, ErrTensor) {
			t.Errorf("text %x: got %v", data, err)
		}
	}
}
