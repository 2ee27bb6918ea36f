package artifact

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"oras.land/oras-go/v2/registry"

	"oscine.dev/oscine/internal/pattern"
)

// ErrReference means that a text names no artifact.
var ErrReference = errdefs.ErrInvalidArgument.WithMessage("not a reference of an artifact")

// Reference names an artifact in a registry, or in an OCI image layout.
type Reference struct {
	remote registry.Reference // zero for a layout
	layout string             // path of its folder or tar file
	tag    string             // in the layout, or a digest
}

const (
	remoteScheme = "oci://"
	layoutScheme = "oci:"
)

var (
	tagRE    = pattern.New(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	digestRE = pattern.New(`^sha256:[0-9a-f]{64}$`)
)

// Parse reads a reference: HOST/REPOSITORY[:TAG][@DIGEST], with or without oci:// before it,
// or oci:PATH[:TAG|@DIGEST] for a layout, whose path ends in .tar where it is a tar
// file. Without a tag it is latest. What names no artifact is ErrReference.
func Parse(text string) (Reference, error) {
	if rest, ok := strings.CutPrefix(text, remoteScheme); ok {
		return parseRemote(rest)
	}
	if rest, ok := strings.CutPrefix(text, layoutScheme); ok {
		return parseLayout(rest)
	}
	return parseRemote(text)
}

func parseRemote(text string) (Reference, error) {
	named, err := reference.ParseDockerRef(text)
	if err != nil {
		return Reference{}, fmt.Errorf("%w: %.300q: %v: write it as HOST/REPOSITORY:TAG", ErrReference, text, err)
	}
	host := reference.Domain(named)
	if !strings.HasPrefix(text, host+"/") { // docker.io is nobody's default here
		return Reference{}, fmt.Errorf("%w: %.300q names no registry: write it as HOST/REPOSITORY:TAG, such as %s", ErrReference, text, named)
	}
	r := registry.Reference{Registry: host, Repository: reference.Path(named)}
	switch named := named.(type) {
	case reference.Digested:
		r.Reference = named.Digest().String()
	case reference.Tagged:
		r.Reference = named.Tag()
	}
	if err := r.Validate(); err != nil {
		return Reference{}, fmt.Errorf("%w: %.300q: %v", ErrReference, text, err)
	}
	return Reference{remote: r}, nil
}

func parseLayout(text string) (Reference, error) {
	r := Reference{layout: text, tag: "latest"}
	if path, digest, ok := strings.Cut(text, "@"); ok && digestRE.MatchString(digest) {
		r.layout, r.tag = path, digest
	} else if at := strings.LastIndexByte(text, ':'); at >= 0 && !strings.ContainsRune(text[at:], filepath.Separator) {
		r.layout, r.tag = text[:at], text[at+1:]
		if !tagRE.MatchString(r.tag) {
			return Reference{}, fmt.Errorf("%w: %.300q: %q is no tag", ErrReference, layoutScheme+text, r.tag)
		}
	}
	if r.layout == "" {
		return Reference{}, fmt.Errorf("%w: %q names no folder: write it as oci:FOLDER:TAG", ErrReference, layoutScheme+text)
	}
	return r, nil
}

// Is reports whether a text is meant as a reference: one with a scheme.
func Is(text string) bool { return strings.HasPrefix(text, layoutScheme) }

// String is the reference in full.
func (r Reference) String() string {
	if !r.Local() {
		return r.remote.String()
	}
	if digestRE.MatchString(r.tag) {
		return layoutScheme + r.layout + "@" + r.tag
	}
	return layoutScheme + r.layout + ":" + r.tag
}

// Source is the reference in full with its scheme, as a Model's spec.source takes it.
func (r Reference) Source() string {
	if r.Local() {
		return r.String()
	}
	return remoteScheme + r.String()
}

// Local reports whether the artifact lies in a layout on this machine.
func (r Reference) Local() bool { return r.layout != "" }

// Host is the registry's host[:port], as credentials name it.
func (r Reference) Host() string { return r.remote.Registry }

// Digest is the digest of the manifest that the reference names, "" for a tag.
func (r Reference) Digest() string {
	if name := r.name(); digestRE.MatchString(name) {
		return name
	}
	return ""
}

// Pinned is the reference with a digest in place of its tag.
func (r Reference) Pinned(digest string) Reference {
	if r.Local() {
		r.tag = digest
	} else {
		r.remote.Reference = digest
	}
	return r
}

// Tag is the reference's tag, "" where it names a digest.
func (r Reference) Tag() string {
	if r.Digest() != "" {
		return ""
	}
	return r.name()
}

// Repository is what the registry calls it, without host and tag; of a layout its
// path.
func (r Reference) Repository() string {
	if r.Local() {
		return r.layout
	}
	return r.remote.Repository
}

func (r Reference) name() string {
	if r.Local() {
		return r.tag
	}
	return r.remote.Reference
}

func (r Reference) tar() bool { return filepath.Ext(r.layout) == ".tar" }

// loopback reports whether the registry is on this very machine, where plain HTTP
// exposes nothing.
func (r Reference) loopback() bool {
	host, _, err := net.SplitHostPort(r.remote.Registry)
	if err != nil {
		host = r.remote.Registry
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
