package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/containerd/v2/core/snapshots"
	capability "github.com/containerd/containerd/v2/pkg/cap"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"oscine.dev/oscine/internal/pattern"
)

// An ID is a subset of what containerd's identifiers.Validate takes.
const maxID = 76

var idRE = pattern.New(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// fill checks a Spec and writes its defaults.
func (s *Spec) fill(cgroupRoot string) error {
	if len(s.ID) > maxID || !idRE.MatchString(s.ID) {
		return fmt.Errorf("container %q: an ID has 1 to %d lower-case letters and digits with single hyphens between them", s.ID, maxID)
	}
	if (s.Image == "") == (s.RootFS == "") {
		return fmt.Errorf("container %s: give an image or a root file system, one of them", s.ID)
	}
	if s.RootFS != "" && !filepath.IsAbs(s.RootFS) {
		return fmt.Errorf("container %s: root %q is not an absolute path", s.ID, s.RootFS)
	}
	if s.Cwd != "" && !filepath.IsAbs(s.Cwd) {
		return fmt.Errorf("container %s: working directory %q is not an absolute path", s.ID, s.Cwd)
	}
	if s.NetNS != "" && s.NetNS != hostNetwork && !filepath.IsAbs(s.NetNS) {
		return fmt.Errorf("container %s: network namespace %q is neither host nor an absolute path", s.ID, s.NetNS)
	}
	if s.CgroupPath == "" {
		s.CgroupPath = filepath.Join(cgroupRoot, "container-"+s.ID)
	}
	if s.CgroupPath = filepath.Clean(s.CgroupPath); !filepath.IsAbs(s.CgroupPath) || s.CgroupPath == "/" {
		return fmt.Errorf("container %s: cgroup %q is not an absolute path below the root", s.ID, s.CgroupPath)
	}
	for _, name := range s.Security.AddCapabilities {
		// Runtimes pass over what they don't know.
		if !slices.Contains(capability.Known(), "CAP_"+name) {
			return fmt.Errorf("container %s: there is no capability CAP_%s; write one as NET_BIND_SERVICE", s.ID, name)
		}
	}
	if s.Hostname == "" {
		s.Hostname = s.ID
	}
	return nil
}

// Start runs a container. If the same Spec runs already, it only rewrites the
// Files that have changed. It takes the place of one that ended. When it fails, nothing of the container is
// left but its log. Errors: ErrNotFound for the image, ErrRunning.
func (r *Runtime) Start(ctx context.Context, spec Spec) error {
	ctx = r.context(ctx)
	if err := spec.fill(r.config.CgroupRoot); err != nil {
		return err
	}
	hash, err := spec.hash()
	if err != nil {
		return err
	}
	if err := r.locks.Lock(ctx, spec.ID); err != nil {
		return err
	}
	defer r.locks.Unlock(spec.ID)
	if task, err := r.engine.tasks.Get(ctx, spec.ID); err == nil {
		_, rec, err := r.container(ctx, spec.ID)
		if err != nil && !errors.Is(err, ErrNotFound) { // a task without a record is what is left of one
			return err
		}
		state, unknown := task.State(ctx)
		if ctx.Err() != nil {
			return ctx.Err() // nobody knows that it has ended
		}
		if err == nil && unknown == nil && state.Status == runtime.RunningStatus {
			if rec.SpecHash == hash {
				return r.writeFiles(spec)
			}
			return fmt.Errorf("container %s %w: stop it first", spec.ID, ErrRunning)
		}
	}
	// Not stopped half-way, as in clear.
	if err := r.remove(context.WithoutCancel(ctx), spec.ID); err != nil {
		return fmt.Errorf("container %s: remove what is left of its last run: %w", spec.ID, err)
	}
	if err := r.start(ctx, spec, hash); err != nil {
		// The context may be the reason; cleaning up goes on without it.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		return errors.Join(fmt.Errorf("start container %s: %w", spec.ID, err), r.remove(clean, spec.ID))
	}
	r.hub.send(Event{Type: EventStarted, ID: spec.ID, Time: time.Now()})
	return nil
}

// start does the work of Start, and may leave things behind when it fails.
func (r *Runtime) start(ctx context.Context, spec Spec, hash string) error {
	r.sweeping.RLock()
	defer r.sweeping.RUnlock()
	rec := record{Labels: spec.Labels, SpecHash: hash, CgroupPath: spec.CgroupPath, LogPath: r.LogPath(spec.ID), OOMKills: oomKills(spec.CgroupPath)}
	if r.host().userns {
		base, err := r.freeUIDs(ctx, spec.ID)
		if err != nil {
			return err
		}
		rec.UIDBase = base
	}
	p := plan{spec: spec, holder: r.config.LoggerPath, uidBase: rec.UIDBase, etc: filepath.Join(r.stateDir(spec.ID), "etc"), host: r.host(), cdiDirs: r.config.CDIDirs}
	c := containers.Container{ID: spec.ID, Runtime: containers.RuntimeInfo{Name: r.config.ShimPath}}
	rootfs, err := r.rootfs(ctx, &p, &c, &rec)
	if err != nil {
		return err
	}
	p.user, err = findUser(ctx, spec.User, p.image.User, spec.Security.AllowRoot, rootfs)
	if err != nil {
		return err
	}
	rec.UID, rec.GID = p.user.UID, p.user.GID
	if err := writeEtc(p.etc, spec); err != nil {
		return err
	}
	if err := r.mountFiles(&p); err != nil {
		return err
	}
	s, err := p.ociSpec()
	if err != nil {
		return err
	}
	if err := r.writeFiles(spec); err != nil { // their folders have their owner now
		return err
	}
	return r.run(ctx, c, rec, p, s, rootfs)
}

// run creates the container and its task, and starts it.
func (r *Runtime) run(ctx context.Context, c containers.Container, rec record, p plan, s *specs.Spec, rootfs []mount.Mount) error {
	var err error
	if c.Spec, err = typeurl.MarshalAny(s); err != nil {
		return err
	}
	if c.Extensions, err = rec.extension(); err != nil {
		return err
	}
	if _, err := r.engine.containers.Create(ctx, c); err != nil {
		return err
	}
	host := p.user
	host.UID, host.GID = host.UID+rec.UIDBase, host.GID+rec.UIDBase
	options, err := typeurl.MarshalAny(&runcoptions.Options{
		BinaryName: r.config.RuntimePath,
		Root:       filepath.Join(r.config.State, "runtime"),
		IoUid:      host.UID, IoGid: host.GID,
	})
	if err != nil {
		return err
	}
	output := r.logURI(p.spec, rec, host)
	task, err := r.engine.tasks.Create(ctx, c.ID, runtime.CreateOpts{
		Spec: c.Spec, Rootfs: rootfs, Runtime: r.config.ShimPath, RuntimeOptions: options, TaskOptions: options,
		IO: runtime.IO{Stdout: output, Stderr: output},
	})
	if err != nil {
		return err
	}
	if p.spec.Created != nil {
		pid, err := task.PID(ctx)
		if err == nil {
			err = p.spec.Created(ctx, int(pid))
		}
		if err != nil {
			return err
		}
	}
	// Recorded before it is true: a start that this process does not survive
	// must not look as if it never happened.
	rec.StartedAt = time.Now()
	if err := r.engine.keep(ctx, c.ID, rec); err != nil {
		return err
	}
	if err := task.Start(ctx); err != nil {
		return err
	}
	r.follow(c.ID, task)
	return nil
}

// rootfs prepares the container's root and says how to mount it.
func (r *Runtime) rootfs(ctx context.Context, p *plan, c *containers.Container, rec *record) ([]mount.Mount, error) {
	if dir := p.spec.RootFS; dir != "" {
		if info, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("root file system: %w", err)
		} else if !info.IsDir() {
			return nil, fmt.Errorf("root file system %s is not a folder", dir)
		}
		base := rec.UIDBase
		if base != 0 && r.host().idmap != nil && r.host().idmap.check(dir) != nil {
			// Read-only files of others: readable as they are.
			base = 0
		}
		return overRootFS(dir, r.layerDir(c.ID), base)
	}
	image, err := r.image(ctx, p.spec.Image)
	if err != nil {
		return nil, err
	}
	manifest, err := images.Manifest(ctx, r.engine.content, image.Target, platforms.OnlyStrict(platforms.DefaultSpec()))
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", image.Name, err)
	}
	var config ocispec.Image
	if err := readJSON(ctx, r.engine.content, manifest.Config, &config); err != nil {
		return nil, fmt.Errorf("image %s: configuration: %w", image.Name, err)
	}
	p.image, rec.Image, rec.Digest = config.Config, image.Name, image.Target.Digest.String()
	c.Image, c.Snapshotter, c.SnapshotKey = image.Name, snapshotterName, c.ID
	var opts []snapshots.Opt
	if rec.UIDBase != 0 {
		ids := idOption(rec.UIDBase)
		opts = append(opts, snapshots.WithLabels(map[string]string{
			snapshots.LabelSnapshotUIDMapping: ids, snapshots.LabelSnapshotGIDMapping: ids,
		}))
	}
	top := identity.ChainID(config.RootFS.DiffIDs).String()
	mounts, err := r.engine.snapshots.Prepare(ctx, c.ID, top, opts...)
	if err != nil {
		return nil, fmt.Errorf("image %s: its layers: %w", image.Name, err)
	}
	return mounts, nil
}

// Layer returns the folder that holds a container's writable layer, as from
// the call of Spec.Created. It returns ErrNotFound.
func (r *Runtime) Layer(ctx context.Context, id string) (string, error) {
	ctx = r.context(ctx)
	c, _, err := r.container(ctx, id)
	if err != nil {
		return "", err
	}
	if c.SnapshotKey == "" {
		return r.layerDir(id), nil
	}
	mounts, err := r.engine.snapshots.Mounts(ctx, c.SnapshotKey)
	if err != nil {
		return "", fmt.Errorf("writable layer of %s: %w", id, err)
	}
	return layerOf(mounts), nil
}

// layerOf is the folder that holds the writable layer of a root, "" for none.
func layerOf(rootfs []mount.Mount) string {
	for _, m := range rootfs {
		for _, option := range m.Options {
			if upper, ok := strings.CutPrefix(option, "upperdir="); ok {
				return filepath.Dir(upper)
			}
		}
	}
	return ""
}

func (r *Runtime) freeUIDs(ctx context.Context, id string) (uint32, error) {
	all, err := r.engine.containers.List(ctx)
	if err != nil {
		return 0, err
	}
	taken := map[uint32]bool{}
	for _, c := range all {
		if rec, err := recordOf(c); err == nil && c.ID != id {
			taken[rec.UIDBase] = true
		}
	}
	return uidBase(id, taken)
}

// keep replaces the record of a container.
func (e *engine) keep(ctx context.Context, id string, rec record) error {
	extension, err := rec.extension()
	if err != nil {
		return err
	}
	_, err = e.containers.Update(ctx, containers.Container{ID: id, Extensions: extension}, "extensions")
	return err
}

// logURI tells the shim to give the output to oscine-log.
func (r *Runtime) logURI(spec Spec, rec record, owner user) string {
	query := url.Values{
		"path":  {rec.LogPath},
		"bytes": {strconv.FormatInt(spec.LogBytes, 10)},
		"owner": {fmt.Sprintf("%d:%d", owner.UID, owner.GID)},
	}
	uri := url.URL{Scheme: "binary-v2", Path: r.config.LoggerPath, RawQuery: query.Encode()}
	return uri.String()
}

// LogPath is the journal of a container's output.
func (r *Runtime) LogPath(id string) string { return filepath.Join(r.config.LogDir, id+".log") }

func (r *Runtime) stateDir(id string) string { return filepath.Join(r.config.State, "c", id) }
func (r *Runtime) layerDir(id string) string { return filepath.Join(r.config.Root, "layers", id) }

// remove deletes all of a container but its log. What is gone already is fine.
func (r *Runtime) remove(ctx context.Context, id string) error {
	var errs []error
	fail := func(err error) {
		if err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	if _, err := r.engine.tasks.Get(ctx, id); err == nil {
		fail(r.endTask(ctx, id))
	}
	fail(r.engine.containers.Delete(ctx, id))
	fail(r.engine.snapshots.Remove(ctx, id))
	fail(r.unmountFiles(id))
	fail(os.RemoveAll(r.stateDir(id)))
	fail(os.RemoveAll(r.layerDir(id)))
	return errors.Join(errs...)
}

func readJSON(ctx context.Context, store content.Provider, desc ocispec.Descriptor, into any) error {
	data, err := content.ReadBlob(ctx, store, desc)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}
