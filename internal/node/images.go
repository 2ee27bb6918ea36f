package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/distribution/reference"

	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/object"
)

// Image is a stored container image.
type Image struct {
	Name    string
	Digest  string
	Size    int64 // bytes
	Created time.Time
}

func imageOf(im container.Image) Image {
	return Image{Name: im.Name, Digest: im.Digest, Size: im.SizeBytes, Created: im.Created}
}

// Images lists the stored container images by name.
func (n *Node) Images(ctx context.Context) ([]Image, error) {
	found, err := n.runtime.Images(ctx)
	return imagesOf(found), err
}

func imagesOf(found []container.Image) []Image {
	list := make([]Image, len(found))
	for i, im := range found {
		list[i] = imageOf(im)
	}
	return list
}

// ImportImage stores the images of an OCI or Docker archive.
func (n *Node) ImportImage(ctx context.Context, r io.Reader) ([]Image, error) {
	found, err := n.runtime.Import(ctx, r)
	return imagesOf(found), err
}

// PullImage fetches an image from its registry, also when it is here already.
func (n *Node) PullImage(ctx context.Context, ref string, progress func(string)) (Image, error) {
	im, err := n.runtime.Pull(ctx, ref, n.secrets().login, progress)
	return imageOf(im), err
}

// RemoveImage removes an image that no workload names.
func (n *Node) RemoveImage(ctx context.Context, name string) error {
	full, err := images{runtime: n.runtime}.Find(ctx, name)
	if err != nil {
		return err
	}
	if full == "" {
		return fmt.Errorf("image %q: %w", name, ErrNotFound)
	}
	// A workload that is applied meanwhile pulls the image again.
	for _, obj := range n.loop.Objects() {
		if w, ok := obj.(*object.Workload); ok && sameReference(w.Spec.Image, full) {
			return fmt.Errorf("%w: %s uses the image %s: delete that first", ErrConflict, w.Key(), full)
		}
	}
	return n.runtime.RemoveImage(ctx, full)
}

// images are the runtime's as the kind Workload sees them.
type images struct {
	runtime containers
	login   container.Login
}

// Pull implements workload.Images.
func (i images) Pull(ctx context.Context, ref string, progress func(string)) (string, error) {
	im, err := i.runtime.Pull(ctx, ref, i.login, progress)
	return im.Name, err
}

// Find implements workload.Images.
func (i images) Find(ctx context.Context, ref string) (string, error) {
	stored, err := i.runtime.Images(ctx)
	if err != nil {
		return "", err
	}
	for _, im := range stored {
		if sameReference(im.Name, ref) {
			return im.Name, nil
		}
	}
	return "", nil
}

// sameReference reports whether two image references mean the same, as
// "nginx" and "docker.io/library/nginx:latest" do.
func sameReference(a, b string) bool {
	x, errA := reference.ParseDockerRef(a)
	y, errB := reference.ParseDockerRef(b)
	return a == b || (errA == nil && errB == nil && x.String() == y.String())
}

// TerminalSize is a terminal's, in characters.
type TerminalSize = container.Size

// ExecOptions says what to run beside a workload.
type ExecOptions struct {
	Command        []string
	TTY            bool
	Size           TerminalSize // at the start
	Resize         <-chan TerminalSize
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Exec runs a program of a running workload's image in its namespaces and
// returns its exit code.
func (n *Node) Exec(ctx context.Context, workload string, o ExecOptions) (int, error) {
	id, err := n.runningWorkload(ctx, workload)
	if err != nil {
		return 0, err
	}
	sizes := make(chan TerminalSize, 1)
	sizes <- o.Size
	go func() {
		defer close(sizes)
		for size := range o.Resize {
			select {
			case sizes <- size:
			case <-ctx.Done():
				return
			}
		}
	}()
	return n.runtime.Exec(ctx, id, container.Exec{
		Args: o.Command, TTY: o.TTY, Resize: sizes, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr,
	})
}

// CopyIn unpacks a tar stream into a folder of a running workload.
func (n *Node) CopyIn(ctx context.Context, workload, dir string, r io.Reader) error {
	id, err := n.runningWorkload(ctx, workload)
	if err != nil {
		return err
	}
	return n.runtime.CopyIn(ctx, id, dir, r)
}

// CopyOut writes a file or folder of a running workload as a tar stream.
func (n *Node) CopyOut(ctx context.Context, workload, path string, w io.Writer) error {
	id, err := n.runningWorkload(ctx, workload)
	if err != nil {
		return err
	}
	return n.runtime.CopyOut(ctx, id, path, w)
}

func (n *Node) runningWorkload(ctx context.Context, name string) (id string, err error) {
	key := object.Key{Kind: object.KindWorkload, Name: name}
	if !n.has(key.ID()) {
		return "", fmt.Errorf("workload %q: %w", name, ErrNotFound)
	}
	now, err := n.runtime.Status(ctx, key.ID())
	if errors.Is(err, container.ErrNotFound) || (err == nil && now.State != container.Running) {
		return "", fmt.Errorf("%w: workload %s is not running: see oscine describe workload %s", ErrConflict, name, name)
	}
	return key.ID(), err
}
