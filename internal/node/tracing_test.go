package node

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"oscine.dev/oscine/internal/object"
)

// The Machine decides whether requests are traced, and where to.
func TestTracingFollowsTheMachine(t *testing.T) {
	if tracer, err := openTracing(&object.Machine{}); tracer != nil || err != nil {
		t.Errorf("without spec.tracing: %v, %v", tracer, err)
	}
	exported := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { exported <- r.URL.Path }))
	defer server.Close()
	m := &object.Machine{Spec: object.MachineSpec{Tracing: &object.Tracing{Endpoint: server.URL + "/"}}}
	n := &Node{machine: m}
	var err error
	if n.tracer, err = openTracing(m); err != nil {
		t.Fatal(err)
	}
	n.openRegistry()
	_, handler := n.Inference()
	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v2", nil))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := n.tracer.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if path := <-exported; path != "/v1/traces" {
		t.Errorf("exported to %s", path)
	}
}
