package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"oscine.dev/oscine/internal/configuration"
	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/disk"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/kmod"
	"oscine.dev/oscine/internal/network"
	"oscine.dev/oscine/internal/node/access"
	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/node/identity"
	"oscine.dev/oscine/internal/node/kind/model"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/node/sandbox"
	"oscine.dev/oscine/internal/node/upgrade"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/tracing"
	"oscine.dev/oscine/internal/update/share"
	"oscine.dev/oscine/internal/update/slot"
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

	Upgrading Upgrading

	// Network tells the node's own network; nil where it is the host's.
	Network func() network.State

	Configurations *configuration.Store // of the Machine; nil where it can't be changed

	Kinds object.Table // that the node stores and runs; nil means object.Kinds()

	Logger *slog.Logger
}

// Node runs what was applied to it. It is safe for concurrent use.
type Node struct {
	config  Config
	machine *object.Machine
	log     *slog.Logger

	store     *reconcile.Store
	access    *access.List
	identity  *identity.Identity
	renewals  *access.Renewals
	tokens    *access.Tokens
	loop      *reconcile.Loop
	box       *sandbox.Sandbox
	files     *model.Files
	choices   *model.Choices
	runtime   containers
	bridge    *network.Bridge
	packs     *pack.Store
	kernel    *kmod.Kernel
	failures  driverFailures // of drivers of the kernel that packs bring
	loads     *driverLoads   // of those; nil where the kernel is the host's
	damage    *damage        // of packs
	registry  *core.Registry
	inference http.Handler    // of the registry
	tracer    *tracing.Tracer // of its requests; nil: not traced
	drivers   *allocate.Drivers
	shares    *allocate.Shares
	placer    *allocate.Placer
	isolator  *isolate.Isolator
	disk      *disk.Disk[object.Key]
	events    *reconcile.Events
	live      *hardware.Live
	recording sync.Mutex // held while the machine is recorded
	finding   sync.Mutex // held while a new map is made the node's
	upgrades  *upgrade.Manager
	sharing   *share.Server // of releases with other nodes; nil where the Machine shares none
	slots     *slot.Slots   // nil where the machine is not ours, or without its data
	upgrading sync.Once     // upgrades have begun
	resetting sync.Mutex    // held while the marks of a reset change
	sealing   sync.Mutex    // held while the header of the encrypted data partition is read or changed
	ready     atomic.Int64  // kernel uptime when the API began to answer, nanoseconds

	attesting sync.Mutex // held while the TPM is used

	benching sync.Mutex // held while wake-ups are measured
	probes   probes

	life context.Context // of what follows the machine; ends at Close
	end  context.CancelFunc
	wg   sync.WaitGroup
}

// containers is the part of container.Runtime that a node needs.
type containers interface {
	sandbox.Runtime
	Images(ctx context.Context) ([]container.Image, error)
	Import(ctx context.Context, tarball io.Reader) ([]container.Image, error)
	Pull(ctx context.Context, ref string, login container.Login, progress func(string)) (container.Image, error)
	RemoveImage(ctx context.Context, ref string) error
	CopyIn(ctx context.Context, id, dir string, stream io.Reader) error
	CopyOut(ctx context.Context, id, name string, w io.Writer) error
	List(ctx context.Context) ([]container.Status, error)
	Missing() []string
	Close() error
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
	n := &Node{config: config, machine: machine, log: config.Logger, damage: newDamage(), kernel: kmod.Running()}
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
	if n.store, err = reconcile.OpenStore(filepath.Join(n.config.StateDir, "state.db"), n.config.Kinds); err != nil {
		return err
	}
	if n.access, err = access.Open(filepath.Join(n.config.StateDir, accessFile)); err != nil {
		return err
	}
	if n.disk, err = disk.Open[object.Key](n.config.StateDir); err != nil {
		return err
	}
	if n.identity, err = identity.Open(filepath.Join(n.config.StateDir, identityFile), n.machine.Spec.API, n.log); err != nil {
		return err
	}
	n.openUpgrades()
	if n.tokens, err = access.OpenTokens(filepath.Join(n.config.StateDir, tokenFile)); err != nil {
		return err
	}
	n.events = reconcile.OpenEvents(ctx, n.systemLog(eventJournal), time.Now, n.log)
	n.renewals = access.OpenRenewals(filepath.Join(n.config.StateDir, renewalFile), n.log)
	n.access.Noted, n.renewals.Noted = n.noteAccess, n.noteAccess
	n.identity.Noted = n.noteIdentity
	if err = n.openPacks(n.identity.Authority()); err != nil {
		return err
	}
	n.drivers = allocate.NewDrivers(n.packs, n.log)
	if n.config.Mode == OnImage {
		if n.loads, err = openDriverLoads(filepath.Join(n.config.StateDir, driverLoadsFile), bootID()); err != nil {
			n.log.Warn("what was noted of drivers is lost", "error", err)
		}
		n.drivers.KernelDriver = n.loadKernelDriver
	}
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
	if n.choices, err = model.OpenChoices(filepath.Join(n.config.StateDir, "engines"), processors("/proc/cpuinfo")); err != nil {
		return err
	}
	if n.files, err = model.OpenFiles(filepath.Join(n.config.StateDir, "models"), n.disk.Room, n.log); err != nil {
		return err
	}
	n.files.Pinned = n.upgrades.PinnedModel
	allow := n.machine.Spec.Images.Allow
	if len(allow) == 0 {
		allow = []string{"*"}
	}
	var mirrors []container.Mirror
	for _, m := range n.machine.Spec.Images.Mirrors {
		mirrors = append(mirrors, container.Mirror(m))
	}
	runtime, err := container.Open(ctx, container.Config{
		Root:        filepath.Join(n.config.StateDir, "containerd"),
		State:       filepath.Join(n.config.RunDir, "containerd"),
		RuntimePath: n.config.RuntimePath, ShimPath: n.config.ShimPath, LoggerPath: n.config.LoggerPath,
		LogDir: n.config.LogDir, Allow: allow, Mirrors: mirrors, CDIDirs: []string{"/etc/cdi", n.cdiDir()}, Room: n.disk.Room, Logger: n.log,
	})
	if err != nil {
		return fmt.Errorf("start the container runtime: %w", err)
	}
	n.runtime = runtime
	n.bridge = network.NewBridge(n.config.RunDir, n.log)
	n.bridge.Close(n.machine.Spec.API.Port)
	n.wg.Go(func() { n.bridge.Follow(n.life) })
	if n.tracer, err = openTracing(n.machine); err != nil {
		return err
	}
	n.openRegistry()
	if err := n.serveSocket(); err != nil {
		return err
	}
	return n.restore(ctx)
}

// placements is where placements are kept: in the store, beside the objects of
// the loop.
type placements struct{ n *Node }

// Objects implements allocate.Store.
func (p placements) Objects() ([]object.Object, error) { return p.n.loop.Objects(), nil }

// SetPlacements implements allocate.Store.
func (p placements) SetPlacements(placed []allocate.Placed) error {
	return p.n.store.SetPlacements(placed)
}

// ForgetPlacement implements allocate.Store.
func (p placements) ForgetPlacement(obj object.Object) error { return p.n.store.ForgetPlacement(obj) }

// openBox makes the sandbox that all kinds share.
func (n *Node) openBox() {
	n.box = sandbox.New(sandbox.Options{
		Placer: n.placer, Store: placements{n}, Shares: n.shares, Network: n.bridge, Isolator: n.isolator, Runtime: n.runtime, Log: n.log,
		Displace: n.displace,
		Freed:    func() { n.loop.Wake(nil) },
		MakeRoom: n.makeRoom,
	})
}

// startLoop makes the loop with a controller for each stored kind, and reads
// what is stored. Nothing is started before Loop.Start.
func (n *Node) startLoop(ctx context.Context, controllers map[object.Kind]reconcile.NewController) error {
	for _, row := range n.config.Kinds.Stored() {
		if controllers[row.Kind] == nil {
			return fmt.Errorf("nothing runs objects of the kind %s in this release", row.Kind)
		}
	}
	n.loop = reconcile.New(ctx, reconcile.Options{
		Records: n.store, Clock: reconcile.System(), Log: n.log, Note: n.note, Adopt: n.placer.Adopt,
		Vacated:     n.vacated,
		Controllers: controllers,
	})
	return n.loop.Load()
}

// socketsDir is the folder of the sockets of all models' workers.
func (n *Node) socketsDir() string { return filepath.Join(n.config.RunDir, "models") }

// restore takes up every stored object and follows the machine.
func (n *Node) restore(ctx context.Context) error {
	n.openBox()
	if err := n.takeUp(ctx); err != nil {
		return err
	}
	n.wg.Go(func() { n.watchHardware(n.life) })
	n.wg.Go(func() { n.drivers.Watch(n.life, n.refreshDrivers, n.driverEvent) })
	n.wg.Go(func() { n.watchNetwork(n.life) })
	n.wg.Go(func() { n.watchPacks(n.life) })
	n.wg.Go(func() { n.watchDisk(n.life) })
	n.wg.Go(func() { n.watchFiles(n.life) })
	n.wg.Go(func() { n.identity.Watch(n.life) })
	return nil
}

// takeUp starts with every stored object and removes containers and networks
// that belong to none.
func (n *Node) takeUp(ctx context.Context) error {
	if err := n.startLoop(ctx, n.controllers()); err != nil {
		return err
	}
	n.shares.Sweep(ctx, n.has)
	n.placer.Existing(n.drivers.Machine())
	n.repairNetwork(ctx)
	running, err := n.runtime.List(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, c := range running {
		if !n.has(c.ID) {
			n.log.Info("removing a container that nothing asks for", "id", c.ID)
			if err := n.runtime.Delete(ctx, c.ID); err != nil {
				n.log.Warn("remove a stray container", "id", c.ID, "error", err)
			}
		}
	}
	n.loop.Start()
	return nil
}

// Close ends the loop and closes the runtime; workloads and engine
// workers go on running for the next daemon to take over.
func (n *Node) Close() error {
	if n.loop != nil {
		n.loop.Close()
	}
	if n.registry != nil {
		n.registry.Close() // before life ends: to a model that looks as if its worker had
	}
	n.end()
	n.wg.Wait()
	var errs []error
	if n.loads != nil {
		errs = append(errs, n.loads.close())
	}
	if n.tracer != nil {
		ctx, cancel := context.WithTimeout(context.Background(), lastTraces)
		errs = append(errs, n.tracer.Close(ctx))
		cancel()
	}
	if n.runtime != nil {
		errs = append(errs, n.runtime.Close())
	}
	if n.isolator != nil {
		errs = append(errs, n.isolator.Close())
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	if n.events != nil {
		errs = append(errs, n.events.Close())
	}
	errs = append(errs, n.live.Close())
	return errors.Join(errs...)
}

// Kinds returns the kinds of objects that the node knows.
func (n *Node) Kinds() object.Table { return n.config.Kinds }
