package oip

import (
	"strings"
	"testing"

	"oscine.dev/oscine/internal/serve/core"
)

// The response cache is told as Triton tells its own.
func TestCacheIsTold(t *testing.T) {
	r := newRig(t)
	r.Serve(core.Model{Name: "m", Cache: core.Caching{Bytes: 1 << 20}})
	r.Wait("m")
	r.Ready("n")
	for range 3 {
		if status, text := r.parameterised("m", 2, ""); status != 200 {
			t.Fatal(status, text)
		}
	}
	for path, want := range map[string][]string{
		"/v2/models/m/stats":  {`"cache_hit":{"count":2,`, `"cache_miss":{"count":1,`, `"inference_count":3`},
		"/v2/models/m/config": {`"response_cache":{"enable":true}`},
	} {
		_, _, text := r.do("GET", path, nil, "")
		_, _, without := r.do("GET", strings.Replace(path, "/m/", "/n/", 1), nil, "")
		for _, w := range want {
			if !strings.Contains(text, w) || strings.Contains(without, "cache") {
				t.Errorf("%s: got %s, want %s; without a cache: %s", path, text, w, without)
			}
		}
	}
}
