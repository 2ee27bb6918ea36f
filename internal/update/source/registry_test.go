package source

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/artifact/artifacttest"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/repository"
	"oscine.dev/oscine/internal/update/repository/repositorytest"
)

// push writes a release folder to a registry.
func push(t *testing.T, dir, reference string) {
	t.Helper()
	r, err := artifact.Parse(reference)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repository.Push(t.Context(), dir, r, artifact.Access{}, func(_ string, _ int64, r io.ReadCloser) io.ReadCloser { return r }); err != nil {
		t.Fatal(err)
	}
}

func offers(t *testing.T, s *source, want string) []*update.Manifest {
	t.Helper()
	list, err := s.Releases(t.Context(), "amd64", "cloud")
	if got := fmt.Sprint(versions(list)); err != nil || got != want {
		t.Fatalf("got %s, %v, want %s", got, err, want)
	}
	return list
}

// TestRegistry reads a release folder from a registry, which breaks off, wants a
// password and sends something else.
func TestRegistry(t *testing.T) {
	dir, r, root := publish(t, "1.0.0")
	registry := artifacttest.StartFaulty(t)
	where := "oci://" + registry.Host + "/acme/releases:stable"
	push(t, dir, where)
	s := client(t, where, root)
	offers(t, s, "[1.0.0]")

	if _, err := r.Create(t.Context(), repository.Release{Parts: repositorytest.Parts(t, "1.1.0", repositorytest.Kernel, repositorytest.Files("1.1.0")), Deltas: 3}); err != nil {
		t.Fatal(err)
	}
	push(t, dir, where)
	list := offers(t, s, "[1.1.0 1.0.0]") // the same source looks again
	registry.Asked()
	registry.Cut(1 << 20)
	if err := s.Fetch(t.Context(), &list[0].Root, nil, slot(t), nil); err != nil {
		t.Errorf("over a bad network: %v", err)
	}
	if asked := registry.Asked(); !slices.ContainsFunc(asked, func(q string) bool { return strings.Contains(q, "bytes=") }) {
		t.Errorf("it was not taken up where it broke off: %q", asked)
	}
	registry.Cut(0)
	if _, err := Verify(t.Context(), where, update.Options{Root: root, State: t.TempDir(), Now: at(start)}, nil); err != nil {
		t.Error(err)
	}

	full := list[0].Image.Full
	registry.Lie("sha256:"+full.SHA256.String(), repositorytest.Noise(7, int(full.Size)))
	if err := s.Fetch(t.Context(), &list[0].Image, nil, slot(t), nil); !errdefs.IsDataLoss(err) {
		t.Errorf("something else: got %v", err)
	}
	registry.Password("secret")
	if _, err := client(t, where, root).Releases(t.Context(), "amd64", "cloud"); !errors.Is(err, artifact.ErrDenied) {
		t.Errorf("no password: got %v", err)
	}
	known := client(t, where, root, func(o *update.Options) {
		o.Registry.Login = artifact.Passwords(func(host string) (string, string) {
			return "rita", map[string]string{registry.Host: "secret"}[host]
		})
	})
	offers(t, known, "[1.1.0 1.0.0]")
	registry.Password("")
	if _, err := client(t, "oci://127.0.0.1:1/acme/releases:stable", root).Releases(t.Context(), "amd64", "cloud"); !errors.Is(err, update.ErrUnreachable) {
		t.Errorf("no registry: got %v", err)
	}
	if _, err := client(t, "oci://"+registry.Host+"/acme/releases:none", root).Releases(t.Context(), "amd64", "cloud"); !errors.Is(err, artifact.ErrNotFound) {
		t.Errorf("no such tag: got %v", err)
	}
	if _, err := open("oci://nowhere", update.Options{Root: root, State: t.TempDir()}); !errors.Is(err, artifact.ErrReference) {
		t.Errorf("no reference: got %v", err)
	}
}
