package upgrade

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/slot"
)

// wanted returns the version that the policy would go to, "" for none.
func (m *Manager) wanted(ctx context.Context) (string, error) {
	source, err := m.open(m.Machine.Source)
	if err != nil {
		return "", err
	}
	defer source.Close()
	slots, err := m.Slots.State()
	if err != nil {
		return "", err
	}
	all, err := source.Releases(ctx, m.Arch, release.Flavour(m.Kernel))
	if err != nil {
		return "", err
	}
	for _, r := range all {
		m.mu.Lock()
		may := r.Newer(slots.Active.Version) && m.state.allowed(r.Version, false) == nil && r.Allowed(m.Arch, release.Flavour(m.Kernel), slots.Active.Version, m.state.Floor) == nil
		m.mu.Unlock()
		if !may {
			continue
		}
		if err := m.Stores.FitKernel(r.Kernel, pinNames(r.Packs), ""); err != nil { // it would fail each time
			m.Log.Warn("a release that the policy wants does not fit", "release", r.Version, "error", err)
			m.Host.Note("UpgradeRefused", fmt.Sprintf("%s: %v", r.Version, err), true)
			continue
		}
		return r.Version, nil
	}
	return "", nil
}

// open opens a source with the node's trust and its peers.
func (m *Manager) open(source string) (update.Source, error) {
	o := m.options()
	for _, text := range m.Machine.Peers {
		if peer, err := object.ParsePeer(text); err == nil { // checked when the Machine was read
			o.Peers = append(o.Peers, peer)
		}
	}
	o.PeerTLS, o.Trouble, o.Received = m.PeerTLS, m.trouble, m.receive
	if m.Cache != nil {
		o.Cache = m.Cache
	}
	return m.Open(source, o)
}

// options are those by which a source is trusted and reached.
func (m *Manager) options() update.Options {
	o := m.trusted()
	o.BytesPerSecond, _ = m.Machine.Bandwidth.Value() // checked too
	o.NotBefore, o.Now, o.Registry = m.built(), m.Now, m.Registry
	return o
}

// built is when the newest release that was found good here was made: that time is
// past, whatever the clock shows.
func (m *Manager) built() (newest time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	newest = m.state.Built // the history is bounded, and was all there was once
	for _, u := range m.state.History {
		if u.Stage == Good && u.Manifest != nil && u.Manifest.Built.After(newest) {
			newest = u.Manifest.Built
		}
	}
	return newest
}

// choose finds the release that is asked for and refuses one that cannot work.
func (m *Manager) choose(ctx context.Context, source update.Source, to string, o Options) (*update.Manifest, error) {
	slots, err := m.Slots.State()
	if err != nil {
		return nil, err
	}
	flavour := release.Flavour(m.Kernel)
	all, err := source.Releases(ctx, m.Arch, flavour)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	floor, pin := m.state.Floor, m.state.Pin
	m.mu.Unlock()
	if to == "" {
		to = pin
	}
	var chosen *update.Manifest
	for _, r := range all {
		if to == "" || r.Version == to {
			chosen = r
			break
		}
	}
	switch {
	case chosen == nil && to != "":
		return nil, fmt.Errorf("%w: %s for %s with the kernel %s; it offers %d others", update.ErrNotOffered, to, m.Arch, flavour, len(all))
	case chosen == nil:
		return nil, fmt.Errorf("%w for %s with the kernel %s", update.ErrNotOffered, m.Arch, flavour)
	case to == "" && !chosen.Newer(slots.Active.Version) && chosen.Version != slots.Active.Version:
		return nil, fmt.Errorf("%w: the newest is %s, older than the running %s: go back with --to %s", slot.ErrRunning, chosen.Version, slots.Active.Version, chosen.Version)
	}
	m.mu.Lock()
	err = m.state.allowed(chosen.Version, o.Force)
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := chosen.Allowed(m.Arch, flavour, slots.Active.Version, floor); err != nil {
		return nil, err
	}
	if err := m.Stores.FitKernel(chosen.Kernel, pinNames(chosen.Packs), ""); err != nil {
		return nil, fmt.Errorf("%w: %w", update.ErrWrongMachine, err)
	}
	return chosen, m.Slots.Check(chosen)
}

// Plan is what an upgrade would do.
type Plan struct {
	Manifest *update.Manifest
	Root     update.Transfer
	Peer     string // that has Root; empty for none
}

// Plan says what Start would do, and changes nothing.
func (m *Manager) Plan(ctx context.Context, r Request) (*Plan, error) {
	if m.Slots == nil {
		return nil, m.notHere()
	}
	if r.Source == "" {
		r.Source = m.Machine.Source
	}
	if r.Source == "" {
		return nil, fmt.Errorf("%w: name one, or set spec.update.source of the Machine", ErrNoSource)
	}
	source, err := m.open(r.Source)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	chosen, err := m.choose(ctx, source, r.To, r.Options)
	if err != nil {
		return nil, err
	}
	base, closer, err := m.Slots.Running()
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	root, peer := source.Choose(ctx, &chosen.Root, base)
	return &Plan{chosen, root, peer}, nil
}

// fetch brings the release onto the disk, checked, with its kernel image hidden
// from the boot loader. What was fetched before is not fetched again.
func (m *Manager) fetch(ctx context.Context, u *Upgrade) error {
	source, err := m.open(u.Source)
	if err != nil {
		return err
	}
	defer source.Close()
	r, err := m.choose(ctx, source, u.To, u.Options)
	if err != nil {
		return err
	}
	m.tries = 0
	err = m.certainly(func(s *state) error {
		if c := s.Current; c != nil && c.Number == u.Number {
			c.To, c.Manifest, c.Stage, c.Message = r.Version, r, Downloading, ""
		}
		return nil
	})
	if err != nil {
		return err
	}
	u.To = r.Version
	m.Host.Note("UpgradeStarted", fmt.Sprintf("from %s to %s, from %s", u.From, u.To, u.Source), false)
	image, err := m.fetchImage(ctx, source, r)
	if err != nil {
		return err
	}
	verity, err := m.Slots.CheckImage(r, image)
	if err != nil {
		return err
	}
	if err := m.fetchPins(ctx, source, u.Number, r); err != nil {
		return err
	}
	if err := m.Stores.FitKernel(r.Kernel, nil, r.Version); err != nil {
		return fmt.Errorf("%w: %w", update.ErrWrongMachine, err)
	}
	// From here the idle slot is no version to go back to.
	if err := m.Slots.Clear(); err != nil {
		return err
	}
	if err := m.fetchRoot(ctx, source, r); err != nil {
		return err
	}
	if err := m.Slots.CheckRoot(ctx, verity); err != nil {
		return err
	}
	if err := m.enter(u.Number, Verified, ""); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := m.Slots.Stage(r.Version, image); err != nil {
		return err
	}
	_ = os.Remove(m.imageFile()) // it is on the ESP now; what stays is overwritten next time
	return m.enter(u.Number, Written, "")
}

func (m *Manager) imageFile() string { return filepath.Join(m.Dir, "image") }

// fetchImage returns the kernel image of a release.
func (m *Manager) fetchImage(ctx context.Context, source update.Source, r *update.Manifest) ([]byte, error) {
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(m.imageFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err == nil && int64(fs.Bavail)*int64(fs.Frsize) < r.Image.Size+dataReserve {
		return nil, fmt.Errorf("%w: its kernel image has %d bytes, the data partition has %d free: see oscine info", slot.ErrNoRoom, r.Image.Size, int64(fs.Bavail)*int64(fs.Frsize))
	}
	if err := f.Truncate(r.Image.Size); err != nil {
		return nil, err
	}
	if err := source.Fetch(ctx, &r.Image, m.imageBase(), f, m.report); err != nil {
		return nil, fmt.Errorf("fetch the kernel image: %w", err)
	}
	image := make([]byte, r.Image.Size)
	_, err = io.ReadFull(io.NewSectionReader(f, 0, r.Image.Size), image)
	return image, err
}

// imageBase is the running kernel image, as a base for deltas; nil where it cannot
// be read.
func (m *Manager) imageBase() *update.Base {
	image, err := m.Slots.RunningImage()
	if err != nil {
		return nil
	}
	return &update.Base{ID: update.Digest(sha256.Sum256(image)).String(), Size: int64(len(image)), Data: bytes.NewReader(image)}
}

func (m *Manager) fetchRoot(ctx context.Context, source update.Source, r *update.Manifest) error {
	idle, err := m.Slots.Idle()
	if err != nil {
		return err
	}
	defer idle.Close()
	base, closer, err := m.Slots.Running()
	if err != nil {
		return err
	}
	defer closer.Close()
	if err := source.Fetch(ctx, &r.Root, base, idle, m.report); err != nil {
		return fmt.Errorf("fetch the root: %w", err)
	}
	return nil
}

func (m *Manager) report(p update.Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.progress = &p
	if u := m.state.Current; u != nil && m.waiting {
		m.waiting, u.Message = false, ""
	}
}
