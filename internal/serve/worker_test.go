package serve

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

const workerVariable = "OSCINE_TEST_WORKER"

// TestMain turns the test binary into a worker when a test starts it as one,
// so that the tests speak to a real process through the real protocol.
func TestMain(m *testing.M) {
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
	poison = 666 // dies
	sloth  = 777 // takes 50 ms
	once   = 888 // dies unless the file named by the model argument exists
	stuck  = 999 // never answers
	gated  = 555 // waits until the file named by the model argument exists
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
	case poison:
		os.Exit(9)
	case sloth:
		time.Sleep(50 * time.Millisecond)
	case once:
		marker := os.Args[4]
		if _, err := os.Stat(marker); err != nil {
			_ = os.WriteFile(marker, nil, 0o600)
			os.Exit(9)
		}
	case gated:
		for {
			if _, err := os.Stat(os.Args[4]); err == nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	case stuck:
		select {}
	}
}

// rig is a registry behind an HTTP server.
type rig struct {
	*testing.T
	registry *Registry
	server   *httptest.Server
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{T: t, registry: NewRegistry()}
	r.server = httptest.NewServer(NewHandler(r.registry, Options{Version: "test", MaxBodyBytes: 1 << 20}))
	t.Cleanup(func() {
		r.server.Close()
		for _, s := range r.registry.List() {
			if err := r.registry.Remove(s.Name); err != nil {
				t.Error(err)
			}
		}
	})
	return r
}

// add serves a model with the test binary as its worker.
func (r *rig) add(name, kind string, timeout time.Duration) {
	r.Helper()
	if err := r.registry.Add(Model{Name: name, Starter: testWorker(r.TempDir(), kind), Timeout: timeout}); err != nil {
		r.Fatal(err)
	}
}

// testWorker starts the test binary as a worker.
func testWorker(dir, kind string) *Exec {
	return &Exec{Command: []string{os.Args[0]}, Model: filepath.Join(dir, "model"), Dir: filepath.Join(dir, "s"), Log: os.Stderr, Env: []string{workerVariable + "=" + kind}}
}

// ready serves a model and waits until it answers.
func (r *rig) ready(name string) {
	r.Helper()
	r.add(name, "doubler", 2*time.Second)
	if err := r.registry.WaitReady(r.Context(), name); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) do(method, path string, header http.Header, body string) (int, http.Header, string) {
	r.Helper()
	return doRequest(r.T, r.server.URL, method, path, header, body)
}
