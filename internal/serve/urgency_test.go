package serve_test

import (
	"fmt"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve"
	"oscine.dev/oscine/internal/serve/core"
)

// recorder is an Urgency that remembers what it was told.
type recorder struct {
	mu     sync.Mutex
	events []string
}

func (u *recorder) Raise(threads []int, _ time.Duration) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.events = append(u.events, fmt.Sprintf("raise %d", len(threads)))
	return nil
}

func (u *recorder) Lower(threads []int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.events = append(u.events, fmt.Sprintf("lower %d", len(threads)))
	return nil
}

// The threads that ONNX Runtime computes with are urgent too, and none of the
// Go runtime's.
func TestEngineThreadsAreUrgent(t *testing.T) {
	starter, registry, u := engine(t, digits), core.NewRegistry(), &recorder{}
	starter.Threads = 2
	server := httptest.NewServer(serve.NewHandler(registry, serve.Options{}))
	t.Cleanup(func() {
		server.Close()
		if err := registry.Remove("m"); err != nil {
			t.Error(err)
		}
	})
	if err := registry.Add(core.Model{Name: "m", Instances: []core.Instance{{Starter: starter, Urgency: u}}, Objective: time.Second}); err != nil {
		t.Fatal(err)
	}
	if err := registry.WaitReady(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	data := strings.TrimSuffix(strings.Repeat("0.5,", 784), ",")
	status, _, text := doRequest(t, server.URL, "POST", "/v2/models/m/infer", nil,
		`{"inputs":[{"name":"image","shape":[1,1,28,28],"datatype":"FP32","data":[`+data+`]}]}`)
	if status != 200 {
		t.Fatal(status, text)
	}
	// The one that serves, and one besides it for the engine's two threads.
	want := fmt.Sprintf("raise %d, lower %[1]d", 1+min(2, runtime.NumCPU())-1)
	if got := strings.Join(u.events, ", "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
