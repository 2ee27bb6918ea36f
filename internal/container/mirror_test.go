package container

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestPullFromMirror asks mirrors in their order, and the registry where it may.
func TestPullFromMirror(t *testing.T) {
	host, _ := registryOf(t, probeImage(t))
	var asked []string
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		asked = append(asked, q.URL.Path)
		http.Error(w, "down for maintenance", http.StatusServiceUnavailable)
	}))
	defer broken.Close()
	config := testConfig(t)
	config.Allow = []string{"*"}
	config.Mirrors = []Mirror{
		{Registry: "registry.invalid", Endpoints: []string{broken.URL + "/cache", "http://" + host}},
		{Registry: "registry.invalid:5000", Endpoints: []string{"http://" + host}, SkipFallback: true},
		{Registry: host, Endpoints: []string{broken.URL}},
		{Registry: "*", Endpoints: []string{broken.URL}, SkipFallback: true},
	}
	r := openRuntime(t, config)
	for _, ref := range []string{"registry.invalid/team/a:1", "registry.invalid:5000/team/b:1", host + "/team/c:1"} {
		image, err := r.Pull(t.Context(), ref, nil, nil)
		if err != nil || image.Name != ref {
			t.Errorf("%s: got %q, %v", ref, image.Name, err)
		}
	}
	if len(asked) == 0 || !strings.HasPrefix(asked[0], "/cache/v2/team/a/") {
		t.Errorf("the first mirror was asked for %q", asked)
	}
	asked = nil
	if _, err := r.Pull(t.Context(), "other.invalid/team/d:1", nil, nil); err == nil || !strings.Contains(err.Error(), "503") || len(asked) == 0 {
		t.Errorf("with the mirror of all others alone, which was asked for %q: %v", asked, err)
	}
}

func TestMirrorFolders(t *testing.T) {
	for registry, want := range map[string]string{"*": "_default", "docker.io": "docker.io", "a.example:5000": "a.example_5000_", "[2001:db8::1]": "[2001:db8::1]", "[::1]:80": "[::1]_80_"} {
		if got := (&Mirror{Registry: registry}).folder(); got != want {
			t.Errorf("%s: got %s, want %s", registry, got, want)
		}
	}
	m := Mirror{Registry: "a", Endpoints: []string{"https://m1", "https://m2"}, SkipFallback: true}
	if got, want := string(m.hosts()), fmt.Sprintf("server = %q\n[host.%q]\ncapabilities = [\"pull\", \"resolve\"]\n", "https://m2", "https://m1"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
