package artifact

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"oras.land/oras-go/v2/registry/remote"
)

func TestParse(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	for text, want := range map[string]struct{ full, host, tag string }{
		"ghcr.io/acme/net":                 {"ghcr.io/acme/net:latest", "ghcr.io", "latest"},
		"oci://ghcr.io/acme/net:1":         {"ghcr.io/acme/net:1", "ghcr.io", "1"},
		"localhost:5000/net:1@" + digest:   {"localhost:5000/net@" + digest, "localhost:5000", ""},
		"docker.io/ai/smollm2:135M-Q4_0":   {"docker.io/ai/smollm2:135M-Q4_0", "docker.io", "135M-Q4_0"},
		"oci:folder":                       {"oci:folder:latest", "", "latest"},
		"oci:a/b.tar:v1":                   {"oci:a/b.tar:v1", "", "v1"},
		"oci:/a:b/c":                       {"oci:/a:b/c:latest", "", "latest"},
		"oci:folder@" + digest:             {"oci:folder@" + digest, "", ""},
		"oci://[::1]:5000/net":             {"[::1]:5000/net:latest", "[::1]:5000", "latest"},
		"oci://ghcr.io/acme/net@" + digest: {"ghcr.io/acme/net@" + digest, "ghcr.io", ""},
	} {
		r, err := Parse(text)
		if err != nil || r.String() != want.full || r.Host() != want.host || r.Tag() != want.tag || r.Local() != strings.HasPrefix(want.full, "oci:") {
			t.Errorf("%s: got %s (%q, %q), %v", text, r, r.Host(), r.Tag(), err)
		}
		if again, err := Parse(r.String()); err != nil || again != r {
			t.Errorf("%s: again %s, %v", text, again, err)
		}
	}
	for _, text := range []string{"", "nginx", "acme/net:1", "oci:", "oci::x", "oci:a:b c", "oci://", "ghcr.io/Acme/net", "ghcr.io/a:b:c", "https://ghcr.io/a", "ghcr.io/a@sha256:1", "ghcr.io/../a"} {
		if r, err := Parse(text); !errors.Is(err, ErrReference) {
			t.Errorf("%q: got %s, %v", text, r, err)
		}
	}
}

func TestPlainHTTPOnThisMachineOnly(t *testing.T) {
	for host, want := range map[string]bool{"localhost:5000": true, "127.0.0.1:5000": true, "[::1]:5000": true, "ghcr.io": false, "localhost.example.com": false, "10.0.0.1:5000": false, "127.example.com": false} {
		r, err := Parse(host + "/a:1")
		if err != nil {
			t.Fatal(err)
		}
		for _, plain := range []bool{false, true} {
			repo, err := Access{PlainHTTP: plain}.repository(r)
			if err != nil || repo.PlainHTTP != (want || plain) {
				t.Errorf("%s, allowed %v: plain HTTP is %v, %v", host, plain, repo.PlainHTTP, err)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("oci://ghcr.io/acme/net:1")
	f.Add("oci:folder@sha256:" + strings.Repeat("0", 64))
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		if again, err := Parse(r.String()); err != nil || again != r {
			t.Errorf("%q is %q, which is %v, %v", text, r, again, err)
		}
	})
}

func TestRegistryWithAnUnknownCertificate(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	r, err := Parse(strings.TrimPrefix(server.URL, "https://") + "/a:1")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), r, Access{})
	if err != nil {
		t.Fatal(err)
	}
	s.from.(*remote.Repository).PlainHTTP = false // as of any other machine
	if _, err := s.Manifest(t.Context(), "amd64"); !errors.Is(err, ErrCertificate) || !strings.Contains(err.Error(), "add its authority") {
		t.Errorf("got %v", err)
	}
}
