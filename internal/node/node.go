package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/disk"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/network"
	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve"
	"oscine.dev/oscine/internal/serve/core"
)

// Errors that a caller can act on; ErrNotFound is beside the store.
var (
	// ErrInvalid is returned for a request that can never succeed as it is.
	ErrInvalid = errdefs.ErrInvalidArgument.WithMessage("invalid request")
	// ErrConflict is returned where the node's present state forbids the call.
	ErrConflict = errdefs.ErrFailedPrecondition.WithMessage("not possible now")
)

// Mode is how the daemon runs.
type Mode string

// The modes.
const (
	OnImage Mode = "image"  // under Oscine's own init
	Hosted  Mode = "hosted" // on another Linux
)

// Config says where a node keeps things and which programs it runs.
type Config struct {
	Mode     Mode
	Version  string // of the release
	Slot     string // root-a or root-b on the image
	StateDir string // persistent, such as /var/lib/oscine
	RunDir   string // lost at reboot, such as /run/oscine; short, sockets lie below
	LogDir   string // persistent, such as /var/log/oscine

	RuntimePath string // crun or runc
	ShimPath    string // containerd-shim-runc-v2
	LoggerPath  string // oscine-log

	// BenchCommand runs latency.RunChild with the argument that is added.
	BenchCommand []string

	// Reboot asks PID 1 to restart or power off; nil where the host is not
	// ours to restart.
	Reboot func(powerOff bool) error

	Kinds object.Table // that the node stores and runs; nil means object.Kinds()

	Logger *slog.Logger
}

// Node runs what was applied to it. Its methods may be called at the same
// time.
type Node struct {
	config  Config
	machine *object.Machine
	log     *slog.Logger

	store     *store
	runtime   *container.Runtime
	bridge    *network.Bridge
	packs     *pack.Store
	registry  *core.Registry
	drivers   *allocate.Drivers
	shares    *allocate.Shares
	placer    *allocate.Placer
	isolator  *isolate.Isolator
	disk      *disk.Disk[object.Key]
	changes   *broadcast
	events    *eventLog
	live      *hardware.Live
	recording sync.Mutex   // held while the machine is recorded
	finding   sync.Mutex   // held while a new map is made the node's
	ready     atomic.Int64 // kernel uptime when the API began to answer, nanoseconds

	benching sync.Mutex // held while wake-ups are measured

	life context.Context // of the controllers; ends at Close
	end  context.CancelFunc
	wg   sync.WaitGroup

	mu          sync.Mutex
	controllers map[object.Key]*running
}

// controller keeps one object running as it is meant to be. Its methods may be
// called at the same time.
type controller interface {
	// update replaces what is meant; it returns at once.
	update(object.Object)
	// current returns what is meant now.
	current() object.Object
	// displace has the object stopped and placed anew, because its part of the
	// machine is gone or given to another; it returns at once.
	displace(reason error)
	// retry has an object that waits for its next try, or for room, tried now.
	retry()
	// status returns the present state, as it is shown to people.
	status() object.Status
	// remove stops the object and frees everything it holds. The controller's
	// life has ended before.
	remove(ctx context.Context) error
	// run reconciles until ctx ends, and then leaves the object running.
	run(ctx context.Context)
}

// maxRunDir bounds Config.RunDir, as the sockets below it have short paths.
const maxRunDir = 64

// Open reads the store, takes over what an earlier daemon left running and
// starts what is meant to run. The machine's workloads outlive Close.
func Open(ctx context.Context, config Config, machine *object.Machine) (*Node, error) {
	if len(config.RunDir) > maxRunDir {
		return nil, fmt.Errorf("%w: the run folder %s has more than %d characters, so sockets below it would not fit their 108 bytes: choose a shorter one", ErrInvalid, config.RunDir, maxRunDir)
	}
	if config.Kinds == nil {
		config.Kinds = object.Kinds()
	}
	n := &Node{
		config: config, machine: machine, log: config.Logger,
		changes: newBroadcast(), controllers: map[object.Key]*running{},
	}
	n.life, n.end = context.WithCancel(context.WithoutCancel(ctx))
	n.live = hardware.NewLive(sysRoot, func(m *hardware.Machine) map[string]hardware.DeviceLoad {
		return hardware.AskLoads(n.life, m, n.drivers.List())
	})
	if err := n.open(ctx); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Node) open(ctx context.Context) (err error) {
	if n.store, err = openStore(filepath.Join(n.config.StateDir, "state.db"), n.config.Kinds); err != nil {
		return err
	}
	if n.events, err = openEvents(ctx, n.systemLog(eventJournal), n.log); err != nil {
		return err
	}
	if n.packs, err = pack.OpenStore(filepath.Join(n.config.StateDir, "packs"), filepath.Join(n.config.RunDir, "packs")); err != nil {
		return err
	}
	n.drivers = allocate.NewDrivers(n.packs, n.log)
	n.reserveHugePages() // before the machine is looked at
	if n.shares, err = allocate.OpenShares(filepath.Join(n.config.RunDir, "devices"), n.drivers, n.askDrivers, n.log); err != nil {
		return err
	}
	if err = n.openPlacer(ctx); err != nil {
		return err
	}
	if err = n.openIsolation(); err != nil {
		return err
	}
	if n.disk, err = disk.Open[object.Key](n.config.StateDir); err != nil {
		return err
	}
	allow := n.machine.Spec.Images.Allow
	if len(allow) == 0 {
		allow = []string{"*"}
	}
	n.runtime, err = container.Open(ctx, container.Config{
		Root:        filepath.Join(n.config.StateDir, "containerd"),
		State:       filepath.Join(n.config.RunDir, "containerd"),
		RuntimePath: n.config.RuntimePath, ShimPath: n.config.ShimPath, LoggerPath: n.config.LoggerPath,
		LogDir: n.config.LogDir, Allow: allow, CDIDirs: []string{"/etc/cdi", n.cdiDir()}, Logger: n.log,
	})
	if err != nil {
		return fmt.Errorf("start the container runtime: %w", err)
	}
	n.bridge = network.NewBridge(n.config.RunDir, n.log)
	n.bridge.Close(n.machine.Spec.API.Port)
	n.wg.Go(func() { n.bridge.Follow(n.life) })
	n.registry = core.NewRegistry()
	return n.restore(ctx)
}

// restore starts a controller for every stored object and removes containers
// and networks that belong to none.
func (n *Node) restore(ctx context.Context) error {
	records, err := n.store.all()
	if err != nil {
		n.log.Error("some stored objects cannot be read by this release and are left alone", "error", err)
	}
	wanted := map[string]bool{}
	ports := map[string][]object.Port{}
	for _, rec := range records {
		n.placer.Adopt(rec.Object, rec.Placement)
		wanted[rec.Object.Key().ID()] = true
		if p, ok := rec.Object.(object.Publisher); ok {
			ports[p.Key().ID()] = p.Ports()
		}
	}
	n.shares.Sweep(ctx, func(id string) bool { return wanted[id] })
	n.placer.Existing(n.drivers.Machine())
	if err := n.bridge.Reconcile(ctx, ports); err != nil {
		n.log.Warn("the workload network is not whole", "error", err)
	}
	running, err := n.runtime.List(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, c := range running {
		if !wanted[c.ID] {
			n.log.Info("removing a container that nothing asks for", "id", c.ID)
			if err := n.runtime.Delete(ctx, c.ID); err != nil {
				n.log.Warn("remove a stray container", "id", c.ID, "error", err)
			}
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, rec := range records {
		n.startController(rec.Object)
	}
	n.wg.Go(func() { n.watchHardware(n.life) })
	n.wg.Go(func() { n.drivers.Watch(n.life, n.refreshDrivers, n.driverEvent) })
	n.wg.Go(func() { n.watchNetwork(n.life) })
	n.wg.Go(func() { n.watchDisk(n.life) })
	return nil
}

// startController begins to reconcile an object. The caller holds n.mu.
func (n *Node) startController(obj object.Object) {
	var c controller
	switch obj := obj.(type) {
	case *object.Workload:
		c = newWorkload(n, obj)
	case *object.Model:
		c = newModel(n, obj)
	default:
		return
	}
	life, end := context.WithCancel(n.life)
	held := &running{controller: c, end: end, ended: make(chan struct{})}
	n.controllers[obj.Key()] = held
	n.wg.Go(func() {
		defer close(held.ended)
		held.run(life)
	})
}

// running is a controller with the means to end its life.
type running struct {
	controller
	end      context.CancelFunc
	ended    chan struct{}
	deleting bool // guarded by Node.mu
}

func (r *running) remove(ctx context.Context) error {
	r.end()
	<-r.ended
	return r.controller.remove(ctx)
}

// Close ends the controllers and closes the runtime; workloads and engine
// workers go on running for the next daemon to take over.
func (n *Node) Close() error {
	n.end()
	n.wg.Wait()
	var errs []error
	if n.registry != nil {
		n.registry.Close()
	}
	if n.runtime != nil {
		errs = append(errs, n.runtime.Close())
	}
	if n.isolator != nil {
		errs = append(errs, n.isolator.Close())
	}
	if n.store != nil {
		errs = append(errs, n.store.close())
	}
	if n.events != nil {
		errs = append(errs, n.events.close())
	}
	errs = append(errs, n.live.Close())
	return errors.Join(errs...)
}

// Kinds returns the kinds of objects that the node knows.
func (n *Node) Kinds() object.Table { return n.config.Kinds }

// Inference answers the Open Inference Protocol for the node's models.
func (n *Node) Inference() http.Handler { return serve.NewHandler(n.registry, serve.Options{}) }
