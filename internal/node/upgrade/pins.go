package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/slot"
)

// digestOf is the digest of a pack or model as the stores have it.
func digestOf(p *update.Pin) string { return "sha256:" + p.SHA256.String() }

// fetchPins brings the packs and models that a release pins onto the data partition,
// beside those that are in use. Those that are there are not fetched again.
func (m *Manager) fetchPins(ctx context.Context, source update.Source, number int, r *update.Manifest) error {
	if err := m.roomForPins(r); err != nil {
		return err
	}
	err := m.certainly(func(s *state) error { // before a pack can come, which counts by it
		for i := range r.Packs {
			if s.Packs == nil {
				s.Packs = map[string]string{}
			}
			s.Packs[digestOf(&r.Packs[i])] = r.Version
			if r.Packs[i].Verity != "" {
				if s.Verities == nil {
					s.Verities = map[string]string{}
				}
				s.Verities[digestOf(&r.Packs[i])] = r.Packs[i].Verity
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	fetch := func(what string, p update.Pin) func(io.Reader, io.Writer) error {
		return func(have io.Reader, w io.Writer) error {
			m.say(number, what+" "+p.Name)
			ours := m.fetching(p.SHA256, w)
			defer ours.Close()
			return source.FetchPin(ctx, p, have, ours, m.report)
		}
	}
	// A peer that sent something wrong is left out the next time.
	again := func(add func() error) error {
		for {
			if err := add(); !errors.Is(err, update.ErrPeer) {
				return err
			}
		}
	}
	for _, p := range r.Packs {
		if err := again(func() error { return m.Stores.AddPack(ctx, r.Version, digestOf(&p), fetch("pack", p)) }); err != nil {
			return fmt.Errorf("fetch the pack %s: %w", p.Name, err)
		}
	}
	for _, p := range r.Models {
		if err := again(func() error { return m.Stores.AddModel(p.Name, digestOf(&p), fetch("model", p)) }); err != nil {
			return fmt.Errorf("fetch the model %s: %w", p.Name, err)
		}
	}
	m.say(number, "")
	return ctx.Err()
}

// pinNames are the names of the files of packs.
func pinNames(packs []update.Pin) (names []string) {
	for i := range packs {
		names = append(names, packs[i].Name)
	}
	return names
}

// roomForPins refuses packs and models that the data partition cannot hold.
func (m *Manager) roomForPins(r *update.Manifest) error {
	need := int64(0)
	for _, p := range m.Pins(r) {
		if !p.Here {
			need += max(p.Size-m.Stores.Left(digestOf(&p.Pin)), 0)
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(m.Dir, &fs); err == nil && need > 0 && int64(fs.Bavail)*int64(fs.Frsize) < need+dataReserve {
		return fmt.Errorf("%w: its packs and models need %d bytes, the data partition has %d free: see oscine info", slot.ErrNoRoom, need, int64(fs.Bavail)*int64(fs.Frsize))
	}
	return nil
}

// Pin is a pack or model of a release.
type Pin struct {
	update.Pin
	Kind string // pack or model
	Here bool   // it need not be fetched
}

// Pins lists the packs and models of a release.
func (m *Manager) Pins(r *update.Manifest) []Pin {
	var all []Pin
	for _, p := range r.Packs {
		all = append(all, Pin{p, "pack", m.Stores.HasPack(digestOf(&p))})
	}
	for _, p := range r.Models {
		all = append(all, Pin{p, "model", m.Stores.HasModel(digestOf(&p))})
	}
	return all
}

// settlePins has the packs of the running release take the places of those before,
// and those of a release that the machine did not go to removed.
func (m *Manager) settlePins() {
	packs, err := m.Stores.Settle()
	if err != nil {
		m.Log.Warn("upgrades: the packs of releases", "error", err)
		return
	}
	m.mu.Lock()
	same := len(m.state.Packs) == len(packs)
	m.mu.Unlock()
	if !same {
		m.change(func(s *state) {
			if s.Current == nil {
				gone := func(digest, _ string) bool { return !slices.Contains(packs, digest) }
				maps.DeleteFunc(s.Packs, gone)
				maps.DeleteFunc(s.Verities, gone)
			}
		})
	}
}

// PinsPack reports whether a release that was verified here pins the pack of a digest,
// and what it says of its hash tree, "" for nothing.
func (m *Manager) PinsPack(digest string) (verity string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok = m.state.Packs[digest]
	return m.state.Verities[digest], ok
}

// FetchPack writes the pack of a digest that the running release pins, from where have
// ends, out of the Machine's source of releases.
func (m *Manager) FetchPack(ctx context.Context, digest string, have io.Reader, w io.Writer) error {
	r := m.runningRelease()
	if r == nil {
		return fmt.Errorf("%w that pins it", update.ErrNotOffered)
	}
	i := slices.IndexFunc(r.Packs, func(p update.Pin) bool { return digestOf(&p) == digest })
	if i < 0 {
		return fmt.Errorf("%w: the release %s pins no such pack", update.ErrNotOffered, r.Version)
	}
	if m.Machine.Source == "" {
		return fmt.Errorf("%w: set spec.update.source of the Machine", ErrNoSource)
	}
	source, err := m.Open(m.Machine.Source, m.options()) // not from peers: w cannot take it back if one lies
	if err != nil {
		return err
	}
	defer source.Close()
	return source.FetchPin(ctx, r.Packs[i], have, w, nil)
}

// PinnedModel returns the digest of the model file of a name that the running release
// pins, "" for none.
func (m *Manager) PinnedModel(name string) string {
	if r := m.runningRelease(); r != nil {
		for i := range r.Models {
			if r.Models[i].Name == name {
				return digestOf(&r.Models[i])
			}
		}
	}
	return ""
}

// PinnedModels are the digests of the model files of the releases in both slots, and
// of the one that comes, each with its version.
func (m *Manager) PinnedModels() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[string]string{}
	releases := slices.Clone(m.state.Releases)
	if u := m.state.Current; u != nil && u.Manifest != nil {
		releases = append(releases, u.Manifest)
	}
	for _, r := range releases {
		for i := range r.Models {
			all[digestOf(&r.Models[i])] = r.Version
		}
	}
	return all
}

// runningRelease is the release that runs, nil where it did not come by an upgrade.
func (m *Manager) runningRelease() *update.Manifest {
	running := m.Running()
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.state.Current; u != nil && u.Manifest != nil && u.wentTo(running) {
		return u.Manifest
	}
	for _, r := range m.state.Releases {
		if r.Version == running {
			return r
		}
	}
	return nil
}

// Running is the version that runs, "" where it is not known.
func (m *Manager) Running() string {
	if m.Facts == nil {
		return ""
	}
	entry, ok := release.ParseEntry(path.Base(m.Facts().Image))
	if !ok {
		return ""
	}
	return entry.Version()
}

// keepRelease remembers the release of an upgrade that was found good, beside the one
// in the other slot.
func (s *state) keepRelease(u *Upgrade) {
	s.Releases = slices.DeleteFunc(s.Releases, func(r *update.Manifest) bool { return r.Version != u.From })
	if u.Manifest != nil {
		s.Releases = append(s.Releases, u.Manifest)
	}
}
