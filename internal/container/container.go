package container

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"syscall"
	"time"
)

// Config says where the runtime keeps its state and which programs it uses.
type Config struct {
	Root        string // persistent state, such as /var/lib/oscine/containerd
	State       string // lost at reboot, such as /run/oscine/containerd; at most 40 bytes long
	RuntimePath string // crun or runc
	ShimPath    string // containerd-shim-runc-v2
	LoggerPath  string // oscine-log
	LogDir      string // one journal per container, such as /var/log/oscine

	Allow       []string // prefixes of image references that may be pulled; empty allows none, "*" all
	CDIDirs     []string // CDI specifications; empty means /etc/cdi, /var/run/cdi
	ImageBytes  int64    // bound of one image, packed; 0 means 16 GiB
	UnpackBytes int64    // bound of one image, unpacked; 0 means 64 GiB

	Logger *slog.Logger // nil discards
}

// Runtime runs containers. It is safe for concurrent use.
type Runtime struct{}

// Open starts the embedded containerd and takes over containers that run.
func Open(ctx context.Context, config Config) (*Runtime, error) { return nil, errors.ErrUnsupported }

// Close leaves containers running.
func (r *Runtime) Close() error { return nil }

// Limits lists, in words for people, what this host cannot guarantee.
func (r *Runtime) Limits() []string { return nil }

// Image is a stored image.
type Image struct {
	Name      string
	Digest    string
	SizeBytes int64
	Platform  string
	Created   time.Time
}

// Import stores the images of an OCI or Docker archive.
func (r *Runtime) Import(ctx context.Context, archive io.Reader) ([]Image, error) {
	return nil, errors.ErrUnsupported
}

// Pull fetches an image from its registry.
func (r *Runtime) Pull(ctx context.Context, ref string, progress func(string)) (Image, error) {
	return Image{}, errors.ErrUnsupported
}

// Images lists stored images by name.
func (r *Runtime) Images(ctx context.Context) ([]Image, error) { return nil, errors.ErrUnsupported }

// RemoveImage forgets an image and frees what nothing else uses.
func (r *Runtime) RemoveImage(ctx context.Context, name string) error { return errors.ErrUnsupported }

// Start runs a container. It does nothing if the same Spec runs already.
func (r *Runtime) Start(ctx context.Context, spec Spec) error { return errors.ErrUnsupported }

// Stop sends SIGTERM, then SIGKILL after grace, and waits.
func (r *Runtime) Stop(ctx context.Context, id string, grace time.Duration) error {
	return errors.ErrUnsupported
}

// Kill sends a signal to the first process.
func (r *Runtime) Kill(ctx context.Context, id string, signal syscall.Signal) error {
	return errors.ErrUnsupported
}

// Delete removes a container, killing it first, and its log.
func (r *Runtime) Delete(ctx context.Context, id string) error { return errors.ErrUnsupported }

// Status tells about one container.
func (r *Runtime) Status(ctx context.Context, id string) (Status, error) {
	return Status{}, errors.ErrUnsupported
}

// List tells about all containers, by ID.
func (r *Runtime) List(ctx context.Context) ([]Status, error) { return nil, errors.ErrUnsupported }

// Wait returns when the container is Exited.
func (r *Runtime) Wait(ctx context.Context, id string) (Status, error) {
	return Status{}, errors.ErrUnsupported
}

// Events sends changes until ctx ends, then closes the channel.
func (r *Runtime) Events(ctx context.Context) <-chan Event { return nil }

// Exec is a process to add to a running container.
type Exec struct {
	Args           []string
	Env            []string
	Cwd            string
	User           string
	TTY            bool
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Resize         <-chan Size
}

// Size is a terminal's, in characters.
type Size struct{ Columns, Rows uint16 }

// Exec runs a process in a container and returns its exit code.
func (r *Runtime) Exec(ctx context.Context, id string, process Exec) (int, error) {
	return 0, errors.ErrUnsupported
}

// CopyOut writes the file or directory at path to w as a tar stream.
func (r *Runtime) CopyOut(ctx context.Context, id, path string, w io.Writer) error {
	return errors.ErrUnsupported
}

// CopyIn unpacks a tar stream into the directory dir.
func (r *Runtime) CopyIn(ctx context.Context, id, dir string, tr io.Reader) error {
	return errors.ErrUnsupported
}
