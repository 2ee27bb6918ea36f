package oip

import (
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/core"
)

// A model that is loaded on demand is ready, the index says that it is idle, and
// its metadata, an inference or a load loads it.
func TestModelOnDemand(t *testing.T) {
	r := newRig(t)
	idle := func(name string) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			s, err := r.Registry.Status(name)
			if err == nil && s.State == core.Idle {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("model %s is %s, %v", name, s.State, err)
			}
		}
	}
	row := `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,0,0,0]}]}`
	for i, c := range []struct{ method, path, body, want string }{
		{"GET", "/v2/models/NAME", "", `"name":"x"`},
		{"GET", "/v2/models/NAME/config", "", `"name":"x"`},
		{"POST", "/v2/models/NAME/infer", row, `"data":[2,0,0,0]`},
		{"POST", "/v2/repository/models/NAME/load", "", ""},
	} {
		name := string(rune('a' + i))
		r.Serve(core.Model{Name: name, Loading: core.Loading{OnDemand: true, Idle: 100 * time.Millisecond}})
		idle(name)
		if status, _, got := r.do("GET", "/v2/models/"+name+"/ready", nil, ""); status != 200 {
			t.Errorf("ready: %d %s", status, got)
		}
		if status, _, got := r.do("POST", "/v2/repository/index", nil, "{}"); status != 200 || !strings.Contains(got, `"state":"UNAVAILABLE","reason":"idle`) {
			t.Errorf("index: %d %s", status, got)
		}
		status, _, got := r.do(c.method, strings.ReplaceAll(c.path, "NAME", name), nil, c.body)
		if s, err := r.Registry.Status(name); status != 200 || !strings.Contains(got, c.want) || err != nil || s.Loads != 1 {
			t.Errorf("%s: got %d %s after %d loads, want %s", c.path, status, got, s.Loads, c.want)
		}
		idle(name)
	}
	if status, _, got := r.do("GET", "/v2/health/ready", nil, ""); status != 200 {
		t.Errorf("the server is not ready: %d %s", status, got)
	}
}
