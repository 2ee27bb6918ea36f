package container

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/pkg/imageverifier"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// prefixes are the references under which the node takes images, pulled or
// imported. The transfer service asks them before it fetches anything but the
// manifest's digest.
type prefixes []string

// VerifyImage judges a pull by the image's name.
func (p prefixes) VerifyImage(_ context.Context, name string, _ ocispec.Descriptor) (*imageverifier.Judgement, error) {
	if err := p.check("pull", name); err != nil {
		return &imageverifier.Judgement{Reason: err.Error()}, nil
	}
	return &imageverifier.Judgement{OK: true, Reason: "its prefix is allowed"}, nil
}

// check returns ErrDenied, with what was to be done, for a name that no prefix covers. A prefix ends
// where a part of the name does: ghcr.io/acme covers ghcr.io/acme/web:1 and
// not ghcr.io/acme-evil/web:1.
func (p prefixes) check(what, name string) error {
	for _, prefix := range p {
		if prefix == "*" {
			return nil
		}
		rest, ok := strings.CutPrefix(name, prefix)
		if ok && prefix != "" && (rest == "" || strings.HasSuffix(prefix, "/") || strings.ContainsAny(rest[:1], "/:@")) {
			return nil
		}
	}
	if len(p) == 0 {
		return fmt.Errorf("%s %s: %w: this node takes no image; allow a prefix in its configuration (spec.images.allow)", what, name, ErrDenied)
	}
	return fmt.Errorf("%s %s: %w: spec.images.allow has %s", what, name, ErrDenied, strings.Join(p, ", "))
}

// normalize gives a reference its full form: nginx is
// docker.io/library/nginx:latest.
func normalize(ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", fmt.Errorf("image %q: %w; write it as registry/path:tag", ref, err)
	}
	return named.String(), nil
}
