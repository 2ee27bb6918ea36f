package job

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"oscine.dev/oscine/internal/optimize"
)

// logitsOf is a file of llama-perplexity: of each token the logarithms of the
// probabilities of a vocabulary, in parts of -16.
func logitsOf(t testing.TB, chunk int, tokens []int32, rows [][]uint16) string {
	t.Helper()
	words := len(rows[0])
	b := []byte(logitsMagic)
	for _, n := range []int{chunk, words, len(tokens) / chunk} {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	for _, n := range tokens {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	for _, row := range rows {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(16./65535))
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(-16))
		for _, v := range row {
			b = binary.LittleEndian.AppendUint16(b, v)
		}
		if words%2 == 1 {
			b = append(b, 0, 0)
		}
	}
	file := filepath.Join(t.TempDir(), "logits")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestCompareLogits(t *testing.T) {
	const sure, half = 65535, 65535 - 2839 // of which the logarithms are 0 and -0.693
	tokens := []int32{0, 0, 0, 1, 0, 0, 0, 2}
	a := logitsOf(t, 4, tokens, [][]uint16{{0, sure, 0}, {0, 9, half}})
	b := logitsOf(t, 4, tokens, [][]uint16{{0, sure, 0}, {sure, 0, half - 2839}})
	e, err := compareLogits(a, b)
	if err != nil || e.tokens != 2 || e.sameTop != 0.5 || math.Abs(e.original-math.Sqrt2) > 1e-3 || math.Abs(e.result-2) > 1e-3 {
		t.Errorf("got %+v, %v", e, err)
	}
	if _, err := compareLogits(a, logitsOf(t, 4, tokens[:4], [][]uint16{{0, sure, 0}})); err == nil {
		t.Error("another text is not refused")
	}
	if _, err := compareLogits(a, logitsOf(t, 4, []int32{0, 0, 0, 7}, [][]uint16{{0, sure, 0}})); err == nil {
		t.Error("a token beyond the vocabulary is not refused")
	}
}

func FuzzLogits(f *testing.F) {
	good, err := os.ReadFile(logitsOf(f, 4, []int32{0, 0, 0, 1}, [][]uint16{{0, 1, 2}}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte(logitsMagic))
	f.Fuzz(func(t *testing.T, content []byte) {
		file := filepath.Join(t.TempDir(), "logits")
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if e, err := compareLogits(file, file); err == nil && (e.sameTop != 1 || e.tokens < 1) {
			t.Errorf("a file beside itself: %+v", e)
		}
	})
}

func TestLanguageAccuracy(t *testing.T) {
	for name, test := range map[string]struct {
		e       expectations
		measure optimize.Measure
		want    float64
	}{
		"perplexity":     {expectations{100, 10, 10.5, 0.9}, optimize.Perplexity, 0.05},
		"better":         {expectations{100, 10, 9, 0.9}, optimize.Perplexity, 0},
		"next tokens":    {expectations{100, 10, 10.5, 0.9}, optimize.Top1, 0.1},
		"made up":        {expectations{100, 10, 10.5, 0.9}, optimize.Auto, 0.1},
		"not a number":   {expectations{100, 10, math.NaN(), 0.9}, optimize.Perplexity, 1},
		"nor with top-1": {expectations{100, 10, math.NaN(), 0.9}, optimize.Top1, 1},
		"no bound":       {expectations{100, 10, math.Inf(1), 0.9}, optimize.Perplexity, 1},
	} {
		l := &llama{job: &job{dir: t.TempDir(), request: optimize.Request{Measure: test.measure}}}
		l.accuracy(&test.e)
		a := l.report.Accuracy
		if !(math.Abs(a.Drop-test.want) < 1e-9) || math.IsNaN(a.Result) || math.IsInf(a.Result, 0) || !a.MadeUp {
			t.Errorf("%s: got %+v, want a drop of %g", name, a, test.want)
		}
	}
}

func TestTimed(t *testing.T) {
	l := &llama{job: &job{dir: "/j", request: optimize.Request{Model: "a.gguf", Result: "b.gguf"}}}
	for _, one := range []timing{
		{File: l.original(), Prompt: 64, Samples: []int64{640, 64000}},
		{File: l.original(), Written: 32, Samples: []int64{6400, 3200}},
		{File: l.result(), Prompt: 64, Samples: []int64{320}},
		{File: l.result(), Written: 32, Samples: []int64{1600}},
		{File: l.result(), Written: 32, Samples: []int64{3200}},
	} {
		l.timed(&one)
	}
	s := l.report.Speed
	if s.OriginalPrompt != 10 || s.OriginalRun != 100 || s.ResultPrompt != 5 || s.ResultRun != 50*time.Nanosecond {
		t.Errorf("got %+v", s)
	}
}
