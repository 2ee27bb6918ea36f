package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"oscine.dev/oscine/internal/disk"
	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/node/upgrade"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/tensor"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/share"
	"oscine.dev/oscine/internal/update/slot"
)

// Upgrading says how the machine itself goes to other releases. The zero value
// is for a node on another Linux, which does not.
type Upgrading struct {
	Facts func() release.Facts             // of this boot; nil where the machine is not ours
	Tell  func(release.Notification) error // PID 1
	Open  func(source string, o update.Options) (update.Source, error)
	Root  []byte // the TUF root metadata that the image brings; nil for none
}

const (
	upgradeFile   = "upgrade.json"
	upgradeDir    = "upgrade"
	shareDir      = "share"
	copiesDir     = "boot" // copies of good kernel images
	bootIDFile    = "/proc/sys/kernel/random/boot_id"
	modelGrace    = 2 * time.Second
	probeFile     = ".storage-check"
	maxCheckInput = 64 << 20 // bytes of the inputs of a model that is checked
)

// openUpgrades reads what is known of upgrades. They begin with MarkReady.
func (n *Node) openUpgrades() {
	how := n.config.Upgrading
	c := upgrade.Config{
		File: filepath.Join(n.config.StateDir, upgradeFile), Dir: filepath.Join(n.config.StateDir, upgradeDir),
		BootLog: filepath.Join(n.config.StateDir, release.BootLogFile), BootID: bootID(),
		Arch: runtime.GOARCH, Kernel: kernelRelease(), Machine: n.machine.Spec.Update, Root: how.Root,
		Facts: how.Facts, Open: how.Open, Tell: how.Tell, Host: &upgradeHost{n}, Stores: upgradeStores{n}, Log: n.log,
		Registry: n.registries(false),
	}
	if how.Facts != nil && how.Facts().Data != "" {
		n.slots = slot.New(slot.OpenDisk(how.Facts().Disk, filepath.Join(n.config.RunDir, "esp")), how.Facts)
		c.Slots, c.Firmware = n.slots, slot.OpenFirmware(how.Facts().Disk)
		c.Copies = slot.Copies{Dir: filepath.Join(n.config.StateDir, copiesDir), Files: filesOfESP(release.ESPOnRoot, n.log)}
	}
	if c.Slots != nil {
		if err := n.openPeers(&c); err != nil { // it is no reason not to run
			n.log.Error("releases are not shared with other nodes", "error", err)
		}
	}
	n.upgrades = upgrade.Open(c)
}

// openPeers is how releases come from other nodes, and go to them.
func (n *Node) openPeers(c *upgrade.Config) error {
	c.PeerTLS = share.PeerTLS(n.identity.Authority(), n.identity.Pair)
	dir := filepath.Join(c.Dir, shareDir)
	shared := n.machine.Spec.Update.Share
	if shared.Size.IsZero() {
		return os.RemoveAll(dir)
	}
	size, _ := shared.Size.Value() // checked when the Machine was read
	bandwidth, _ := shared.Bandwidth.Value()
	var err error
	if c.Cache, err = share.Open(dir, size, n.disk.Room); err != nil {
		return err
	}
	n.sharing = share.NewServer(share.Config{
		Cache: c.Cache, BytesPerSecond: bandwidth,
		Metadata: func(name string) ([]byte, error) { return n.upgrades.Metadata(name) },
		Pinned:   func(d update.Digest) (*os.File, error) { return n.upgrades.OpenPinned(d) },
	})
	return nil
}

// Releases serves files of releases to other nodes of the cluster; nil where the Machine
// shares none.
func (n *Node) Releases() http.Handler {
	if n.sharing == nil {
		return nil
	}
	return n.sharing
}

// filesOfESP are the files that the root keeps for the ESP, by their paths there.
func filesOfESP(dir string, log *slog.Logger) map[string][]byte {
	files := map[string][]byte{}
	root := os.DirFS(dir)
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files[name], err = fs.ReadFile(root, name)
		return err
	})
	if err != nil {
		log.Warn("the boot loader's files cannot be repaired", "error", err)
	}
	return files
}

// upgradeStores are the node's packs and model files as upgrades see them.
type upgradeStores struct{ n *Node }

// HasPack implements upgrade.Stores.
func (s upgradeStores) HasPack(digest string) bool { return s.n.packs.Holds(digest) }

// HasModel implements upgrade.Stores.
func (s upgradeStores) HasModel(digest string) bool {
	stored, _ := s.n.files.Received(digest, false)
	return stored
}

// Left implements upgrade.Stores.
func (s upgradeStores) Left(digest string) int64 {
	_, model := s.n.files.Received(digest, false)
	return model + s.n.packs.Left(digest)
}

// AddPack implements upgrade.Stores.
func (s upgradeStores) AddPack(ctx context.Context, release, digest string, fetch func(io.Reader, io.Writer) error) error {
	return s.n.packs.Stage(ctx, release, digest, s.asking(fetch))
}

// AddModel implements upgrade.Stores.
func (s upgradeStores) AddModel(name, digest string, fetch func(io.Reader, io.Writer) error) error {
	return s.n.files.Fetch(name, digest, s.asking(fetch))
}

// OpenPack implements upgrade.Stores.
func (s upgradeStores) OpenPack(digest string) (*os.File, error) { return s.n.packs.Open(digest) }

// OpenModel implements upgrade.Stores.
func (s upgradeStores) OpenModel(digest string) (*os.File, error) {
	return os.Open(s.n.files.Path(digest))
}

// FitKernel implements upgrade.Stores.
func (s upgradeStores) FitKernel(kernel string, pins []string, staged string) error {
	return s.n.packs.FitKernel(kernel, pins, staged)
}

// Settle implements upgrade.Stores.
func (s upgradeStores) Settle() ([]string, error) { return s.n.packs.Settle() }

// asking ends a fetch when the disk is full.
func (s upgradeStores) asking(fetch func(io.Reader, io.Writer) error) func(io.Reader, io.Writer) error {
	return func(have io.Reader, w io.Writer) error { return fetch(have, disk.AskingTo(w, s.n.disk.Room)) }
}

// Upgrades is what takes the machine from release to release.
func (n *Node) Upgrades() *upgrade.Manager { return n.upgrades }

func bootID() string {
	raw, err := os.ReadFile(bootIDFile)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// upgradeHost is the node as upgrades see it.
type upgradeHost struct{ n *Node }

// Note implements upgrade.Host.
func (h *upgradeHost) Note(reason, message string, warning bool) {
	h.n.events.Add(Event{Reason: reason, Message: message, Warning: warning})
}

// Before implements upgrade.Host.
func (h *upgradeHost) Before() upgrade.Before {
	b := upgrade.Before{Network: networkCheck(context.Background()) == nil}
	for _, state := range h.n.loop.Get("", "") {
		if wanted(state.Status.Common().Phase) {
			b.Objects = append(b.Objects, state.Key.String())
		}
	}
	return b
}

// wanted reports that an object of a phase runs or is on its way to it, as all are
// just after a boot. One that has ended, was stopped, or does not work as it is
// cannot be asked of the new version either.
func wanted(phase object.Phase) bool {
	switch phase {
	case object.Running, object.Pending, object.Pulling, object.Starting:
		return true
	}
	return false
}

// Drain implements upgrade.Host.
func (h *upgradeHost) Drain(ctx context.Context) {
	n := h.n
	n.loop.Close() // nothing is started again
	running, err := n.runtime.List(ctx)
	if err != nil {
		n.log.Warn("drain", "error", err)
		return
	}
	graces := map[string]time.Duration{}
	for _, obj := range n.loop.Objects() {
		if w, ok := obj.(*object.Workload); ok {
			graces[w.Key().ID()] = w.Spec.StopGrace.Std()
		}
	}
	var all sync.WaitGroup
	for _, c := range running {
		grace, ok := graces[c.ID]
		if !ok {
			grace = modelGrace
		}
		all.Go(func() {
			if err := n.runtime.Stop(ctx, c.ID, grace); err != nil {
				n.log.Warn("drain", "container", c.ID, "error", err)
			}
		})
	}
	all.Wait()
}

// Checks implements upgrade.Host.
func (h *upgradeHost) Checks(before *upgrade.Before) []upgrade.Check {
	n := h.n
	checks := []upgrade.Check{
		{Name: "api", Run: func(context.Context) error {
			if n.ready.Load() == 0 {
				return errors.New("it does not answer yet")
			}
			return nil
		}},
		{Name: "storage", Run: func(context.Context) error {
			file := filepath.Join(n.config.StateDir, probeFile)
			return errors.Join(durable.WriteFile(file, []byte("written by a check\n"), 0o600), durable.Remove(file))
		}},
	}
	for _, url := range n.machine.Spec.Update.Gate.HTTP {
		checks = append(checks, upgrade.Check{Name: url, Run: func(ctx context.Context) error { return httpCheck(ctx, url) }})
	}
	if before == nil {
		return checks
	}
	if before.Network {
		checks = append(checks, upgrade.Check{Name: "network", Run: networkCheck})
	}
	for _, name := range before.Objects {
		kind, object, ok := strings.Cut(name, "/")
		if ok {
			checks = append(checks, h.objectCheck(kind, object))
		}
	}
	return checks
}

// networkCheck holds that a real interface has an address that others reach.
func networkCheck(context.Context) error {
	interfaces, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range interfaces {
		if _, err := os.Stat(filepath.Join("/sys/class/net", i.Name, "device")); err != nil || i.Flags&net.FlagRunning == 0 {
			continue // not of the hardware, or without a link
		}
		addresses, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addresses {
			if p, ok := a.(*net.IPNet); ok && p.IP.IsGlobalUnicast() {
				return nil
			}
		}
	}
	return errors.New("no interface has an address")
}

// httpCheck holds that a URL answers with a status from 200 to 399.
func httpCheck(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // only the status counts
	resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("it answers with %s", resp.Status)
	}
	return nil
}

// objectCheck holds that an object that ran runs again, and for a model that it
// answers. One that was deleted, or that ended as it should, is passed over.
func (h *upgradeHost) objectCheck(kind, name string) upgrade.Check {
	return upgrade.Check{Name: strings.ToLower(kind) + " " + name, Run: func(ctx context.Context) error {
		states := h.n.loop.Get(object.Kind(kind), name)
		if len(states) == 0 {
			return nil
		}
		switch st := states[0].Status.Common(); {
		case st.Phase == object.Exited:
			return nil
		case st.Phase != object.Running && st.Phase != object.Idle:
			if st.Message == "" {
				return fmt.Errorf("it is %s", st.Phase)
			}
			return fmt.Errorf("it is %s: %s", st.Phase, st.Message)
		}
		if object.Kind(kind) == object.KindModel {
			return h.n.inferOnce(ctx, name)
		}
		return nil
	}}
}

// inferOnce asks a model for one answer to an input of zeros. A model whose inputs
// are not tensors of numbers is only held to run.
func (n *Node) inferOnce(ctx context.Context, name string) error {
	st, err := n.registry.Status(name)
	if err != nil {
		return err
	}
	if st.State == core.Idle { // its inputs are known once it is loaded
		if st, err = n.registry.Ready(ctx, st.ServedAs, st.Version); err != nil {
			return err
		}
	}
	q := core.Request{Model: st.ServedAs, Version: st.Version, Timeout: 10 * time.Second}
	total := int64(0)
	for _, in := range st.Inputs {
		size := int64(in.Type.Size())
		shape := make(tensor.Shape, len(in.Shape))
		for i, d := range in.Shape {
			shape[i] = max(d, 1) // what may be of any length is of one
			size *= shape[i]
		}
		if total += size; in.Type.Size() == 0 || total > maxCheckInput {
			return nil
		}
		q.Inputs = append(q.Inputs, core.Input{Name: in.Name, Type: in.Type, Shape: shape, Data: zeros{}})
	}
	if len(q.Inputs) == 0 {
		return nil
	}
	answer, err := n.registry.Infer(ctx, q)
	if err != nil {
		return fmt.Errorf("it runs, but does not answer: %w", err)
	}
	answer.Free()
	return nil
}

// zeros is an input of zeros.
type zeros struct{}

// Put implements core.Source.
func (zeros) Put(dst []byte) error {
	clear(dst)
	return nil
}
