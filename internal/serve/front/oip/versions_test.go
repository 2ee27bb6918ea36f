package oip

import (
	"strings"
	"testing"

	"oscine.dev/oscine/internal/serve/core"
)

// Answers about a model, where no version is named, are about all its versions.
func TestVersionsAreToldTogether(t *testing.T) {
	r := newRig(t)
	r.Ready("m")
	r.Serve(core.Model{Name: "m-2", ServedAs: "m", Version: "2"})
	r.Wait("m-2")
	for path, want := range map[string]string{
		"/v2/models/m":                  `"versions":["1","2"]`,
		"/v2/models/m/stats":            `"version":"2"`,
		"/v2/models/stats":              `"version":"2"`,
		"/v2/models/m/versions/1/stats": `"version":"1"`,
	} {
		status, _, got := r.do("GET", path, nil, "")
		if status != 200 || !strings.Contains(got, want) && !strings.Contains(got, `"versions":["2","1"]`) {
			t.Errorf("%s: got %d %s, want %s", path, status, got, want)
		}
		if path == "/v2/models/m/stats" && strings.Count(got, `"version":`) != 2 {
			t.Errorf("%s: want both versions: %s", path, got)
		}
	}
}
