package servetest

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"math"
	"os"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/engine/enginetest"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// workerVariable tells the test's program which kind of worker it is: testEngine,
// or a doubler's.
const (
	workerVariable = "OSCINE_TEST_WORKER"
	testEngine     = "engine"
)

// Main runs a package's tests. It turns the test's program into a worker when a
// test starts it as one, so that the tests speak to a real process through the
// real protocol.
func Main(m *testing.M) {
	switch kind := os.Getenv(workerVariable); kind {
	case "":
	case testEngine:
		os.Exit(worker.Main("worker", new(enginetest.Engine), os.Args[1:], os.Stderr))
	default:
		os.Exit(worker.Main("worker", &doubler{kind: kind}, os.Args[1:], os.Stderr))
	}
	os.Exit(m.Run())
}

// Inputs that make the doubler misbehave.
const (
	Poison = 666 // dies
	Sloth  = 777 // takes 50 ms
	Once   = 888 // dies unless the file that Marker names exists
	Stuck  = 999 // never answers
	Gated  = 555 // waits until the file that Marker names exists
	Greedy = 444 // writes GreedyBytes to shared memory, into slots of nobody's
)

// GreedyBytes is how much a greedy worker writes.
const GreedyBytes = 64 << 20

// Marker is a file beside a model's, for the inputs that look at one.
func Marker(model string) string { return model + ".marker" }

// doubler is an engine that answers y = 2x, and how many rows shared the run.
type doubler struct{ kind, path string }

func (d *doubler) Flags(*flag.FlagSet) {}

func (d *doubler) Options() []string { return nil }

func (d *doubler) Open(path string, _ worker.Options) (worker.Session, error) {
	if d.kind == "refuse" {
		return nil, errors.New("not a model: it is a test")
	}
	d.path = path
	return d, nil
}

func (d *doubler) Close() error { return nil }

func (d *doubler) Metadata() channel.Metadata {
	return channel.Metadata{Engine: "doubler 1", Batch: d.kind != "single",
		Inputs:  []tensor.Spec{{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{-1, 4}}},
		Outputs: []tensor.Spec{{Name: "y", Type: tensor.FP32, Shape: tensor.Shape{-1, 4}}, {Name: "batch", Type: tensor.Int32, Shape: tensor.Shape{-1}}}}
}

func (d *doubler) Run(_ context.Context, in []worker.Tensor, out *worker.Output) error {
	rows := in[0].Shape[0]
	doubled := make([]byte, len(in[0].Data))
	for at := 0; at < len(doubled); at += 4 {
		f := math.Float32frombits(binary.LittleEndian.Uint32(in[0].Data[at:]))
		if at%16 == 0 {
			d.misbehave(f)
		}
		binary.LittleEndian.PutUint32(doubled[at:], math.Float32bits(2*f))
	}
	shared := make([]byte, 4*rows)
	for at := 0; at < len(shared); at += 4 {
		binary.LittleEndian.PutUint32(shared[at:], uint32(rows))
	}
	for _, output := range out.Wanted() {
		shape, data := in[0].Shape, doubled
		if output == 1 {
			shape, data = tensor.Shape{rows}, shared
		}
		if err := out.Put(shape, data); err != nil {
			return err
		}
	}
	return nil
}

func (d *doubler) misbehave(first float32) {
	marked := func() bool {
		_, err := os.Stat(Marker(d.path))
		return err == nil
	}
	switch first {
	case Poison:
		os.Exit(9)
	case Sloth:
		time.Sleep(50 * time.Millisecond)
	case Once:
		if !marked() {
			_ = os.WriteFile(Marker(d.path), nil, 0o600)
			os.Exit(9)
		}
	case Gated:
		for !marked() {
			time.Sleep(time.Millisecond)
		}
	case Greedy:
		if err := writeEverywhere(); err != nil {
			os.Exit(10)
		}
	case Stuck:
		time.Sleep(time.Hour)
	}
}
