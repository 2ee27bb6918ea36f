package serve_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"os/exec"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/serve"
	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/engine/modeltest"
	"oscine.dev/oscine/internal/tensor"
)

// sileroState is what silero-vad keeps between two pieces of speech.
func sileroState() core.Sequencing {
	return core.Sequencing{States: []core.KeptState{{Input: "state", Output: "stateN", Shape: tensor.Shape{2, 1, 128}}}}
}

// piece is the n-th piece of a made-up sound: 32 ms at 16 kHz, and 4 ms before.
func piece(n int) []core.Input {
	const rate, samples = 16000, 576
	sound := make(core.Bytes, 0, 4*samples)
	for i := range samples {
		at := float64(n*512+i) / rate
		v := math.Sin(2*math.Pi*220*at) * math.Sin(2*math.Pi*3*at) * float64(1+n%5) / 6
		sound = binary.LittleEndian.AppendUint32(sound, math.Float32bits(float32(v)))
	}
	return []core.Input{
		{Name: "input", Type: tensor.FP32, Shape: tensor.Shape{1, samples}, Data: sound},
		{Name: "sr", Type: tensor.Int64, Shape: tensor.Shape{}, Data: core.Bytes(binary.LittleEndian.AppendUint64(nil, rate))},
	}
}

// A real model with state gives in a sequence, bit for bit, what it gives where
// the client hands the state from request to request, also where sequences come
// in turn.
func TestSequenceOfARealModel(t *testing.T) {
	file := modeltest.Path(t, modeltest.Silero)
	registry := core.NewRegistry()
	server := newServer(serve.NewHandler(registry, serve.Options{}))
	t.Cleanup(server.Close)
	for name, sequencing := range map[string]core.Sequencing{"plain": {}, "vad": sileroState()} {
		if err := registry.Add(core.Model{Name: name, Platform: "onnxruntime_onnx", Instances: core.One(engine(t, file)), Sequencing: sequencing}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := registry.Remove(name); err != nil {
				t.Error(err)
			}
		})
		if err := registry.WaitReady(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	const pieces = 20
	states := map[string]core.Bytes{"1": make(core.Bytes, 4*2*128), "2": make(core.Bytes, 4*2*128)}
	differ := false
	for n := range pieces {
		var answers []byte
		for i, id := range []string{"1", "2"} {
			inputs := piece(n + 7*i)
			byHand, err := registry.Infer(t.Context(), core.Request{Model: "plain", Inputs: append(inputs, core.Input{Name: "state", Type: tensor.FP32, Shape: tensor.Shape{2, 1, 128}, Data: states[id]})})
			if err != nil {
				t.Fatal(err)
			}
			kept, err := registry.Infer(t.Context(), core.Request{Model: "vad", Inputs: inputs, Sequence: core.Sequence{ID: id, Start: n == 0, End: n == pieces-1}})
			if err != nil {
				t.Fatal(err)
			}
			if len(kept.Outputs) != 1 || len(byHand.Outputs) != 2 || !bytes.Equal(kept.Outputs[0].Data, byHand.Outputs[0].Data) {
				t.Fatalf("piece %d of sequence %s: got %+v, want %+v", n, id, kept.Outputs, byHand.Outputs)
			}
			states[id] = bytes.Clone(byHand.Outputs[1].Data)
			answers = append(answers, kept.Outputs[0].Data...)
			kept.Free()
			byHand.Free()
		}
		differ = differ || !bytes.Equal(answers[:4], answers[4:])
	}
	if !differ {
		t.Error("the two sequences are the same: the test shows nothing")
	}
	t.Run("Triton's clients", func(t *testing.T) {
		out, err := exec.CommandContext(t.Context(), pythonClients(t), "testdata/sequence/triton.py", server.Listener.Addr().String(), "plain", "vad").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "answers agree") {
			t.Errorf("%v\n%s", err, out)
		}
	})
}
