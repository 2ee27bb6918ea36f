package servetest

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

const workerVariable = "OSCINE_TEST_WORKER"

// Main runs a package's tests. It turns the test's program into a worker when a
// test starts it as one, so that the tests speak to a real process through the
// real protocol.
func Main(m *testing.M) {
	if kind := os.Getenv(workerVariable); kind != "" {
		fmt.Fprintln(os.Stderr, "worker:", workerMain(kind, os.Args[1:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func workerMain(kind string, args []string) error {
	l, err := channel.Listen(args[1]) // --socket SOCKET --model MODEL
	if err != nil {
		return err
	}
	if kind == "refuse" {
		return l.Refuse("not a model: it is a test")
	}
	e := &doubler{meta: channel.Metadata{Engine: "doubler 1", Batch: kind != "single", Threads: 1,
		Inputs:  []tensor.Spec{{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{-1, 4}}},
		Outputs: []tensor.Spec{{Name: "y", Type: tensor.FP32, Shape: tensor.Shape{-1, 4}}, {Name: "batch", Type: tensor.Int32, Shape: tensor.Shape{}}}}}
	return l.Serve(e)
}

// Inputs that make the doubler misbehave.
const (
	Poison = 666 // dies
	Sloth  = 777 // takes 50 ms
	Once   = 888 // dies unless the file of the model exists
	Stuck  = 999 // never answers
	Gated  = 555 // waits until the file of the model exists
)

// doubler answers y = 2x, and how many requests shared the run.
type doubler struct{ meta channel.Metadata }

func (d *doubler) Metadata() *channel.Metadata { return &d.meta }

func (d *doubler) Infer(calls []channel.Call) {
	for i := range calls {
		c := &calls[i]
		n := int(c.Request.Shapes[0][0]) * 4
		if n > 0 {
			misbehave(math.Float32frombits(binary.LittleEndian.Uint32(c.Memory)))
		}
		at := c.End
		for j := range n {
			f := math.Float32frombits(binary.LittleEndian.Uint32(c.Memory[4*j:]))
			binary.LittleEndian.PutUint32(c.Memory[at+4*j:], math.Float32bits(2*f))
		}
		next := (at + 4*n + 63) &^ 63
		binary.LittleEndian.PutUint32(c.Memory[next:], uint32(len(calls)))
		for _, o := range []struct {
			at    int
			shape tensor.Shape
		}{{at, c.Request.Shapes[0]}, {next, tensor.Shape{}}} {
			c.Result.Shapes = append(c.Result.Shapes, o.shape)
			c.Result.Offsets = append(c.Result.Offsets, o.at)
		}
		if w := c.Request.Wanted; len(w) == 1 {
			c.Result.Shapes, c.Result.Offsets = c.Result.Shapes[w[0]:w[0]+1], c.Result.Offsets[w[0]:w[0]+1]
		}
	}
}

func misbehave(first float32) {
	switch first {
	case Poison:
		os.Exit(9)
	case Sloth:
		time.Sleep(50 * time.Millisecond)
	case Once:
		marker := os.Args[4]
		if _, err := os.Stat(marker); err != nil {
			_ = os.WriteFile(marker, nil, 0o600)
			os.Exit(9)
		}
	case Gated:
		for {
			if _, err := os.Stat(os.Args[4]); err == nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	case Stuck:
		select {}
	}
}
