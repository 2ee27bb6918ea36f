package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/containerd/errdefs"
)

// Errors that a caller can act on.
var (
	// ErrNotFound says that no container or image has the name.
	ErrNotFound = errdefs.ErrNotFound.WithMessage("not found")
	// ErrRunning says that the container runs already, from another Spec: stop it first.
	ErrRunning = errdefs.ErrFailedPrecondition.WithMessage("runs already from another specification")
	// ErrNotRunning says that the container has no process to act on.
	ErrNotRunning = errdefs.ErrFailedPrecondition.WithMessage("is not running")
	// ErrDenied says that the policy does not allow to pull the image.
	ErrDenied = errdefs.ErrPermissionDenied.WithMessage("denied by policy")
	// ErrPlatform says that an image is for another architecture or system.
	ErrPlatform = errdefs.ErrInvalidArgument.WithMessage("is for another platform")
	// ErrTooLarge says that an image exceeds a bound of Config.
	ErrTooLarge = errdefs.ErrInvalidArgument.WithMessage("is too large")
)

// namespace is where containerd's stores keep what is Oscine's.
const namespace = "oscine"

// Config says where the runtime keeps its state and which programs it uses.
type Config struct {
	Root        string // persistent state, such as /var/lib/oscine/containerd
	State       string // lost at reboot, such as /run/oscine/containerd; at most 40 bytes long
	RuntimePath string // crun or runc
	ShimPath    string // containerd-shim-runc-v2
	LoggerPath  string // oscine-log
	LogDir      string // one journal per container, such as /var/log/oscine

	CgroupRoot  string   // parent of the cgroups of containers whose Spec names none; empty means /oscine.slice/batch
	Allow       []string // prefixes of image references that may be pulled or imported; empty allows none, "*" all
	Mirrors     []Mirror // asked before the registries that they mirror
	CDIDirs     []string // CDI specifications; empty means /etc/cdi and /var/run/cdi
	ImageBytes  int64    // bound of one image, packed; 0 means 16 GiB
	UnpackBytes int64    // bound of one image, unpacked; 0 means 64 GiB

	// Room refuses, with a reason that names what to remove, where no more should
	// be stored on Root's disk: neither bytes nor files. It is asked before an image
	// is pulled or imported, and again and again while it is stored and unpacked.
	// nil means that there is room.
	Room func() error `json:"-"`

	Logger *slog.Logger // nil discards
}

// Runtime runs containers. It is safe for concurrent use.
type Runtime struct {
	config Config
	log    *slog.Logger
	engine *engine
	host   func() host // asked for once: it starts the runtime
	hub    hub

	locks    keyedLock    // one per container ID
	sweeping sync.RWMutex // held for reading while something is between its creation and its first reference

	stop  context.CancelFunc
	watch sync.WaitGroup

	closing sync.RWMutex // held for reading while the end of a container is recorded
	closed  bool
}

// Open starts the embedded containerd and takes over the containers that run.
// A Root belongs to one process at a time.
func Open(ctx context.Context, config Config) (*Runtime, error) {
	if err := config.fill(); err != nil {
		return nil, err
	}
	if err := config.writeMirrors(); err != nil {
		return nil, fmt.Errorf("open container runtime: %w", err)
	}
	e, err := openEngine(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open container runtime: %w", err)
	}
	background, stop := context.WithCancel(withLog(namespaces.WithNamespace(context.Background(), namespace), config.Logger))
	r := &Runtime{config: config, log: config.Logger, engine: e, host: sync.OnceValue(func() host { return inspectHost(config) }), stop: stop}
	r.watchOOM(background)
	if err := r.adopt(background); err != nil {
		r.Close()
		return nil, fmt.Errorf("open container runtime: %w", err)
	}
	r.watch.Go(r.sweep)
	return r, nil
}

func (c *Config) fill() error {
	for _, dir := range []string{c.Root, c.State, c.LogDir} {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("open container runtime: %q is not an absolute folder", dir)
		}
	}
	if len(c.State) > 40 { // sockets live below it, and their paths have 107 bytes
		return fmt.Errorf("open container runtime: the state folder's path %s is longer than 40 bytes", c.State)
	}
	for what, path := range map[string]string{"runtime (crun or runc)": c.RuntimePath, "shim (containerd-shim-runc-v2)": c.ShimPath, "logger (oscine-log)": c.LoggerPath} {
		if info, err := os.Stat(path); err != nil || info.Mode()&0o111 == 0 {
			return fmt.Errorf("open container runtime: the %s is not at %q: build or install it, then name its path", what, path)
		}
	}
	if c.CgroupRoot == "" {
		c.CgroupRoot = "/oscine.slice/batch"
	}
	if len(c.CDIDirs) == 0 {
		c.CDIDirs = []string{"/etc/cdi", "/var/run/cdi"}
	}
	if c.ImageBytes == 0 {
		c.ImageBytes = 16 << 30
	}
	if c.UnpackBytes == 0 {
		c.UnpackBytes = 64 << 30
	}
	if c.Room == nil {
		c.Room = func() error { return nil }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Close releases the stores. Containers go on: their shims own them. The
// process is expected to end soon after, since connections to shims stay open
// until then: closing one would tell containerd that its container died.
func (r *Runtime) Close() error {
	r.stop()
	r.watch.Wait()
	r.closing.Lock()
	defer r.closing.Unlock()
	r.closed = true
	return r.engine.close()
}

// Missing lists, in words for people, what this host cannot guarantee and how
// to get it. It is empty on an Oscine image.
func (r *Runtime) Missing() []string { return r.host().missing }

// context adds what containerd's packages expect to find.
func (r *Runtime) context(ctx context.Context) context.Context {
	return withLog(namespaces.WithNamespace(ctx, namespace), r.log)
}

// container returns the stored container and Oscine's record of it.
func (r *Runtime) container(ctx context.Context, id string) (containers.Container, record, error) {
	c, err := r.engine.containers.Get(ctx, id)
	if err != nil {
		return c, record{}, named("container "+id, err)
	}
	rec, err := recordOf(c)
	return c, rec, err
}

// closeAll closes in reverse order.
func closeAll(closers []io.Closer) error {
	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		// A server that was shut down has closed its listener already.
		if err := closers[i].Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
