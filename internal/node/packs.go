package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/disk"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/kmod"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/pki"
)

// openPacks opens the store of packs, in which those of the running release count.
func (n *Node) openPacks(trust *x509.CertPool) (err error) {
	if n.packs, err = pack.OpenStore(filepath.Join(n.config.StateDir, "packs"), filepath.Join(n.config.RunDir, "packs"), trust); err != nil {
		return err
	}
	if n.packs.Uncleared != nil {
		n.log.Warn("mounts of packs that are no more stay until the next start", "error", n.packs.Uncleared)
	}
	n.packs.Revoked, n.packs.Pinned, n.packs.Release = n.access.Revoked, n.upgrades.PinsPack, n.upgrades.Running()
	n.packs.Damaged, n.packs.Users = n.damage.wake, n.runOn
	if n.config.Mode == OnImage {
		n.packs.Kernel, n.packs.TryModule = kernelRelease(), n.kernel.Try
		n.packs.HasDevice = func(k *pack.KernelDriver) bool { return n.kernel.Present(&kmod.Driver{Devices: k.Devices}) }
	}
	return nil
}

// InstallPack stores a pack, after checking that it is one for this architecture
// and signed by an admin, and replaces the one of the same name. Models that run from
// the old one go to it one after the other, each once it has proven to answer there.
func (n *Node) InstallPack(ctx context.Context, r io.Reader, signature pki.Signature) (*pack.Info, error) {
	if err := n.disk.Room(); err != nil {
		return nil, fmt.Errorf("install the pack: %w", err)
	}
	info, err := n.packs.Install(ctx, disk.Asking(r, n.disk.Room), signature)
	if err != nil {
		return nil, packError(err)
	}
	n.packInstalled(info)
	return info, nil
}

// PullPack fetches a pack from a registry with the credentials of the node's
// Secrets, and installs it as InstallPack does. It also returns the reference with
// the digest that it led to.
func (n *Node) PullPack(ctx context.Context, reference string, plainHTTP bool, progress func(received, size int64)) (*pack.Info, string, error) {
	r, err := artifact.Parse(reference)
	if err != nil {
		return nil, "", err
	}
	if r.Local() {
		return nil, "", fmt.Errorf("%w: %s is a folder, which the node does not read: oscine pack pull sends it from your computer", ErrInvalid, r)
	}
	if err := n.disk.Room(); err != nil {
		return nil, "", fmt.Errorf("pull the pack: %w", err)
	}
	store, err := artifact.Open(ctx, r, n.registries(plainHTTP))
	if err != nil {
		return nil, "", err
	}
	a, err := pack.FindArtifact(ctx, store, runtime.GOARCH)
	if err != nil {
		return nil, "", packError(err)
	}
	a.PlainHTTP = plainHTTP
	info, err := n.packs.Pull(ctx, a, store, disk.AskingFor(n.disk.Room, func(received int64) { progress(received, a.SizeBytes) }))
	if err != nil {
		return nil, "", packError(err)
	}
	n.packInstalled(info)
	return info, a.Reference, nil
}

// registries is how the node reaches registries of artifacts.
func (n *Node) registries(plainHTTP bool) artifact.Access {
	return artifact.Access{
		Login: artifact.Passwords(n.secrets().login), PlainHTTP: plainHTTP,
		SignIn: "oscine secret set NAME --registry %s --username USER --from-stdin password",
	}
}

func (n *Node) packInstalled(info *pack.Info) {
	n.log.Info("pack installed", "name", info.Name, "version", info.Version, "digest", info.Digest)
	if len(info.Engines) > 0 {
		n.retryModels()
		n.moveModels()
	}
	n.forgetKernelDriver(info)
	if len(info.Drivers) > 0 {
		n.drivers.Wake()
	}
	n.packRepaired(info)
}

// moveModels has those models look at their packs again that run on another version
// than the installed one.
func (n *Node) moveModels() {
	packs, err := n.packs.All()
	if err != nil {
		n.log.Warn("models stay on older packs", "error", err)
		return
	}
	newest := map[string]bool{}
	for i := range packs {
		newest[packs[i].Digest] = packs[i].Next == ""
	}
	moves := map[object.Key]bool{}
	for _, state := range n.loop.Get(object.KindModel, "") {
		if st, ok := state.Status.(*object.ModelStatus); ok && st.Pack != "" {
			moves[state.Key] = !newest[st.Pack]
		}
	}
	n.loop.Renew(func(obj object.Object) bool { return moves[obj.Key()] })
}

// runOn are the objects that run on the pack of a digest, as Kind/name: they keep it
// until they have moved to the version that takes its place.
func (n *Node) runOn(_, digest string) (users []string) {
	for _, state := range n.loop.Get(object.KindModel, "") {
		if st, ok := state.Status.(*object.ModelStatus); ok && st.Pack == digest && (st.Phase == object.Running || st.Phase == object.Idle) {
			users = append(users, state.Key.String())
		}
	}
	return users
}

// Packs lists the installed packs by name, and behind each the older versions on which
// models run still.
func (n *Node) Packs() ([]pack.Info, error) {
	packs, err := n.packs.All()
	for i := range packs {
		packs[i].KernelState = n.kernelDriverState(&packs[i])
	}
	return packs, err
}

// RemovePack removes a pack that no model runs on, and no workload.
func (n *Node) RemovePack(_ context.Context, name string) error {
	info, err := n.packs.Find(name)
	if errors.Is(err, pack.ErrNotInstalled) {
		return fmt.Errorf("%w: no pack %q is installed (see oscine pack list)", ErrNotFound, name)
	}
	if err != nil {
		return packError(err)
	}
	all, err := n.packs.All()
	if err != nil {
		return packError(err)
	}
	for _, p := range all {
		if users := usersOf(info.Name, p.Digest, n.loop.Get("", "")); p.Name == info.Name && len(users) > 0 {
			return fmt.Errorf("%w: %s runs on the pack %s %s: delete that first", ErrConflict, users[0].Key, p.Name, p.Version)
		}
	}
	if len(info.Drivers) > 0 {
		defer n.drivers.Wake()
	}
	if err := n.packs.Remove(info.Name); err != nil {
		return packError(err)
	}
	n.unloadKernelDriver(info)
	return nil
}

// usersOf are the objects that need the pack of a name and digest: models that run on
// it, and workloads whose manifests name it.
func usersOf(name, digest string, states []object.State) (users []object.State) {
	for _, state := range states {
		if st, ok := state.Status.(*object.ModelStatus); ok && st.Pack == digest {
			users = append(users, state)
		}
		if w, ok := state.Object.(*object.Workload); ok && w.Spec.Pack == name {
			users = append(users, state)
		}
	}
	return users
}

func packError(err error) error {
	switch {
	case errors.Is(err, pack.ErrNotInstalled):
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case errors.Is(err, pack.ErrNotPack):
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return err
}

// device tells which driver is behind a device that an object was given.
func (n *Node) device(name string) pack.Device {
	d := pack.Device{Name: name}
	_, id, _ := strings.Cut(name, "=")
	for _, a := range n.drivers.Machine().Accelerators {
		if a.ID == id || slices.ContainsFunc(a.Partitions, func(p hardware.Partition) bool { return p.ID == id }) {
			d.Driver, d.Version = a.Driver, a.DriverVersion
		}
	}
	return d
}

// retryModels wakes the models: some may wait for an engine.
func (n *Node) retryModels() {
	n.loop.Wake(func(obj object.Object) bool { return obj.Key().Kind == object.KindModel })
}
