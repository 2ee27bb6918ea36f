package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	eventsapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/core/events/exchange"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/mount"
	v2 "github.com/containerd/containerd/v2/core/runtime/v2"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/transfer"
	transferlocal "github.com/containerd/containerd/v2/core/transfer/local"
	"github.com/containerd/containerd/v2/core/unpack"
	"github.com/containerd/containerd/v2/pkg/imageverifier"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/containerd/ttrpc"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"google.golang.org/protobuf/types/known/emptypb"
)

// snapshotterName is overlayfs's name among containerd's snapshotters.
const snapshotterName = "overlayfs"

// engine is the part of containerd that Oscine needs, put together without its
// plugin system: no CRI, no gRPC, no listener but the one for shims.
type engine struct {
	db         *metadata.DB
	content    content.Store
	images     images.Store
	containers containers.Store
	leases     leases.Manager
	snapshots  snapshots.Snapshotter
	transfer   transfer.Transferrer
	tasks      *v2.TaskManager
	exchange   *exchange.Exchange
	overlay    snapshots.Snapshotter // without the metadata on top
	closers    []io.Closer
}

func openEngine(ctx context.Context, config Config) (_ *engine, err error) {
	// What has no context to log to writes to standard error; shims inherit the level.
	if err := log.SetLevel(log.ErrorLevel.String()); err != nil {
		return nil, err
	}
	e := &engine{exchange: exchange.NewExchange()}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	if err := e.openStores(ctx, config); err != nil {
		return nil, err
	}
	e.transfer = transferlocal.NewTransferService(e.content, e.images, transferlocal.TransferConfig{
		Leases:                 e.leases,
		MaxConcurrentDownloads: 3,
		Verifiers:              map[string]imageverifier.ImageVerifier{"oscine": prefixes(config.Allow)},
		DuplicationSuppressor:  &keyedLock{},
		UnpackPlatforms: []unpack.Platform{{
			Platform:       platforms.OnlyStrict(platforms.DefaultSpec()),
			SnapshotterKey: snapshotterName,
			Snapshotter:    e.snapshots,
			Applier:        newApplier(e.content, config.UnpackBytes, &room{ask: config.Room}),
		}},
	})
	return e, e.openTasks(withLog(namespaces.WithNamespace(ctx, namespace), config.Logger), config)
}

func (e *engine) openStores(ctx context.Context, config Config) error {
	if err := os.MkdirAll(config.Root, 0o700); err != nil {
		return err
	}
	if err := os.MkdirAll(config.State, 0o711); err != nil {
		return err
	}
	// A remapped container walks through it to its root, also if it was there before.
	if err := os.Chmod(config.State, 0o711); err != nil {
		return err
	}
	store, err := local.NewStore(filepath.Join(config.Root, "content"))
	if err != nil {
		return fmt.Errorf("content store: %w", err)
	}
	snapshotter, err := overlay.NewSnapshotter(filepath.Join(config.Root, snapshotterName), overlay.WithRemapIDs)
	if err != nil {
		return fmt.Errorf("overlayfs snapshotter: %w", err)
	}
	e.closers = append(e.closers, snapshotter)
	e.overlay = snapshotter
	db, err := bolt.Open(filepath.Join(config.Root, "meta.db"), 0o600, &bolt.Options{
		Timeout: 3 * time.Second, NoFreelistSync: true, FreelistType: bolt.FreelistMapType,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return fmt.Errorf("%s belongs to another oscined that runs", config.Root)
	} else if err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	e.db = metadata.NewDB(db, store, map[string]snapshots.Snapshotter{snapshotterName: snapshotter})
	e.closers = append(e.closers, e.db)
	if err := e.db.Init(ctx); err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	e.content = roomyStore{smallManifests{e.db.ContentStore()}, &room{ask: config.Room}}
	e.images = metadata.NewImageStore(e.db)
	e.containers = metadata.NewContainerStore(e.db)
	e.leases = metadata.NewLeaseManager(e.db)
	e.snapshots = e.db.Snapshotter(snapshotterName)
	if err := e.createNamespace(ctx); err != nil {
		return err
	}
	return e.tidy(namespaces.WithNamespace(ctx, namespace), config.Root)
}

// tidy removes what a killed process left in the stores: folders of snapshots
// that were never recorded, whose numbers would be given out again, and leases
// of transfers that go on no more.
func (e *engine) tidy(ctx context.Context, root string) error {
	if cleaner, ok := e.overlay.(snapshots.Cleaner); ok {
		err := cleaner.Cleanup(ctx)
		if errdefs.IsNotFound(err) { // not one snapshot was ever recorded
			dir := filepath.Join(root, snapshotterName, "snapshots")
			err = errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700))
		}
		if err != nil {
			return fmt.Errorf("overlayfs snapshotter: %w", err)
		}
	}
	all, err := e.leases.List(ctx)
	if err != nil {
		return err
	}
	for _, lease := range all {
		if err := e.leases.Delete(ctx, lease); err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) createNamespace(ctx context.Context) error {
	return e.db.Update(func(tx *bolt.Tx) error {
		store := metadata.NewNamespaceStore(tx)
		names, err := store.List(ctx)
		if err != nil || len(names) > 0 {
			return err
		}
		return store.Create(ctx, namespace, nil)
	})
}

// openTasks listens for shims and connects to those that run.
func (e *engine) openTasks(ctx context.Context, config Config) error {
	address := filepath.Join(config.State, "ttrpc")
	listener, err := listenUnix(address)
	if err != nil {
		return err
	}
	e.closers = append(e.closers, listener)
	server, err := ttrpc.NewServer(ttrpc.WithServerHandshaker(ttrpc.UnixSocketRequireSameUser()))
	if err != nil {
		return err
	}
	eventsapi.RegisterTTRPCEventsService(server, shimEvents{e.exchange})
	e.closers = append(e.closers, server)
	go server.Serve(ctx, listener)

	// Where layers are id-mapped on their way to a root, here and in shims: /tmp
	// may be read-only, or full.
	scratch := filepath.Join(config.State, "tmp")
	if err := mount.SetTempMountLocation(scratch); err != nil {
		return err
	}
	shims, err := v2.NewShimManager(&v2.ManagerConfig{
		Store:        e.containers,
		SandboxStore: metadata.NewSandboxStore(e.db),
		Events:       e.exchange,
		Address:      address,
		TTRPCAddress: address,
		SocketDir:    filepath.Join(config.State, "s"),
		ShimEnv:      []string{"XDG_RUNTIME_DIR=" + scratch},
	})
	if err != nil {
		return err
	}
	root, state := filepath.Join(config.Root, "tasks"), filepath.Join(config.State, "tasks")
	for _, dir := range []string{root, state} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
	}
	if err := e.beforeLoading(ctx, config); err != nil {
		return err
	}
	if e.tasks, err = v2.NewTaskManager(ctx, root, state, shims); err != nil {
		return err
	}
	if err := e.afterLoading(ctx, config); err != nil {
		return err
	}
	_, err = mount.CleanupTempMounts(0) // its warnings are of mounts that are still in use
	return err
}

// listenUnix listens on a socket that only this user can reach.
func listenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	// The next owner of the path may listen already when this one closes.
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, err
	}
	return listener, nil
}

func (e *engine) close() error { return closeAll(e.closers) }

// shimEvents takes what shims publish.
type shimEvents struct{ exchange *exchange.Exchange }

// Forward passes an event on to this process's subscribers.
func (s shimEvents) Forward(ctx context.Context, r *eventsapi.ForwardRequest) (*emptypb.Empty, error) {
	if r.Envelope == nil {
		return nil, errors.New("an event without an envelope")
	}
	return &emptypb.Empty{}, s.exchange.Forward(ctx, &events.Envelope{
		Timestamp: r.Envelope.Timestamp.AsTime(),
		Namespace: r.Envelope.Namespace,
		Topic:     r.Envelope.Topic,
		Event:     r.Envelope.Event,
	})
}
