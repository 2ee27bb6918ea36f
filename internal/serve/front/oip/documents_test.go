package oip

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// The document names what is answered, all of it and no more.
func TestOpenAPINamesEveryRoute(t *testing.T) {
	r := newRig(t)
	status, header, text := r.do("GET", "/v2/openapi.yaml", nil, "")
	if status != 200 || header.Get("Content-Type") != "application/yaml" {
		t.Fatalf("got %d %v", status, header)
	}
	var doc struct {
		Paths map[string]map[string]any
	}
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for path, methods := range doc.Paths {
		for method := range methods {
			if method != "parameters" && strings.HasPrefix(path, "/v2") {
				got = append(got, strings.ToUpper(method)+" "+path)
			}
		}
	}
	for path, methods := range (&handler{}).routes() {
		for method := range maps.Keys(methods) {
			if path != "/v2/{$}" {
				want = append(want, method+" "+path)
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the routes and the document: (-want +got)\n%s", diff)
	}
	if status, _, text := r.do("GET", "/v2/inference.proto", nil, ""); status != 200 || !strings.Contains(text, "service GRPCInferenceService {") {
		t.Errorf("got %d %.100s", status, text)
	}
}
