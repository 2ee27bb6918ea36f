package slot

import (
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/uki"
)

// Health says what a version in a slot is.
type Health string

// What versions are.
const (
	Good   Health = "good"   // it has worked
	Trial  Health = "trial"  // it has tries left to prove itself
	Bad    Health = "bad"    // it was given up, and is started only where there is no other
	Staged Health = "staged" // it is complete, and hidden from the boot loader
	Empty  Health = "empty"  // no kernel image uses the slot
)

// Version is what a slot holds.
type Version struct {
	Slot     string // release.PartitionRootA or release.PartitionRootB
	Version  string // of Oscine; empty for an empty slot
	Health   Health
	Running  bool
	Image    string // path of its kernel image on the ESP
	Kernel   string // as uname -r prints it
	RootHash string // in hex
	Left     int    // tries left, on trial
}

// State is what the disk holds.
type State struct {
	Active   Version
	Idle     Version
	SlotSize int64 // bytes of the idle slot
	Free     int64 // bytes on the ESP
	// Stray are images and leftovers on the ESP that neither slot needs.
	Stray []string
	// FreeWithout is how many bytes the ESP has once stray files and the idle
	// slot's images are removed.
	FreeWithout int64
	ImageSize   int64 // bytes of the running version's kernel image
}

// ErrUnusable is returned where the machine cannot be updated at all.
var ErrUnusable = errors.New("this machine cannot be updated")

// stagedSuffix ends the name of a kernel image that the boot loader is not to see.
const stagedSuffix = ".staged"

// Slots are the two slots of the machine that runs. It is safe for concurrent use
// by one writer and any readers.
type Slots struct {
	disk  Disk
	facts func() release.Facts
}

// New returns the slots of a disk; facts are those of this boot.
func New(disk Disk, facts func() release.Facts) *Slots { return &Slots{disk, facts} }

// ESP has f use the EFI system partition of the disk: see [Disk].
func (s *Slots) ESP(f func(ESP) error) error { return s.disk.ESP(f) }

// entry is a kernel image on the ESP, staged or not.
type entry struct {
	path   string
	name   release.Entry
	staged bool
	size   int64
	verity release.Verity
	kernel string
	bad    error // why the file is no kernel image
}

// State reads what the disk holds.
func (s *Slots) State() (State, error) {
	var state State
	err := s.disk.ESP(func(esp ESP) (err error) {
		state, _, err = s.read(esp)
		return err
	})
	return state, err
}

// read also returns the entry of the running version.
func (s *Slots) read(esp ESP) (State, entry, error) {
	facts := s.facts()
	if facts.Image == "" || !release.IsSlot(facts.Slot) {
		return State{}, entry{}, fmt.Errorf("%w: its kernel did not come from the disk's boot loader, so nothing would start a new one", ErrUnusable)
	}
	entries, err := readEntries(esp)
	if err != nil {
		return State{}, entry{}, err
	}
	state := State{Active: Version{Slot: facts.Slot}, Idle: Version{Slot: other(facts.Slot), Health: Empty}}
	running, err := s.findRunning(entries, facts)
	if err != nil {
		return State{}, entry{}, err
	}
	state.Active = running.version(facts.Slot)
	state.Active.Running, state.ImageSize = true, running.size
	if state.Free, err = esp.Free(); err != nil {
		return State{}, entry{}, err
	}
	state.FreeWithout = state.Free
	partition, err := s.disk.Open(state.Idle.Slot)
	if err != nil {
		return State{}, entry{}, fmt.Errorf("open slot %s: %w", state.Idle.Slot, err)
	}
	defer partition.Close()
	state.SlotSize = partition.Size()
	for _, e := range entries {
		if e.path == running.path {
			continue
		}
		state.FreeWithout += e.size
		if e.bad == nil && holds(partition, e.verity) && state.Idle.Health == Empty {
			state.Idle = e.version(state.Idle.Slot)
			continue
		}
		state.Stray = append(state.Stray, e.path)
	}
	return state, running, nil
}

// findRunning finds the image of the running version, whose counter may have
// changed since it was started.
func (s *Slots) findRunning(entries []entry, facts release.Facts) (entry, error) {
	started, ok := release.ParseEntry(path.Base(facts.Image))
	if !ok {
		return entry{}, fmt.Errorf("%w: %q is not the name of a kernel image", ErrUnusable, facts.Image)
	}
	var found *entry
	for i, e := range entries {
		// Two were there while it was being put last: the first one is whole.
		if e.bad == nil && !e.staged && e.name.Title == started.Title && (found == nil || found.name.Bad()) {
			found = &entries[i]
		}
	}
	if found != nil {
		return *found, nil
	}
	return entry{}, fmt.Errorf("%w: the kernel image of the running version, %s, is not on the ESP any more", ErrUnusable, facts.Image)
}

// readEntries reads the heads of all kernel images, in the order of their names.
func readEntries(esp ESP) ([]entry, error) {
	names, err := esp.List(release.ImageFolder)
	if err != nil {
		return nil, fmt.Errorf("list the kernel images: %w", err)
	}
	slices.Sort(names)
	var all []entry
	for _, name := range names {
		e := entry{path: path.Join(release.ImageFolder, name)}
		bare, staged := strings.CutSuffix(name, stagedSuffix)
		parsed, ok := release.ParseEntry(bare)
		if !ok || !strings.HasPrefix(parsed.Title, imageName+"_") {
			continue // not ours, and not to be touched
		}
		e.name, e.staged = parsed, staged
		if err := e.read(esp); err != nil {
			return nil, fmt.Errorf("read %s: %w", e.path, err)
		}
		all = append(all, e)
	}
	return all, nil
}

func (e *entry) read(esp ESP) error {
	f, err := esp.Open(e.path)
	if err != nil {
		return err
	}
	defer f.Close()
	e.size = f.Size()
	head, err := uki.ReadHead(f)
	if err != nil {
		e.bad = err
		return nil
	}
	e.kernel = head.Uname
	e.verity, e.bad = head.Verity()
	return nil
}

func (e *entry) version(slot string) Version {
	v := Version{
		Slot: slot, Version: e.name.Version(), Image: e.path, Kernel: e.kernel, RootHash: fmt.Sprintf("%x", e.verity.RootHash), Health: Good,
	}
	switch {
	case e.staged:
		v.Health = Staged
	case e.name.Bad():
		v.Health = Bad
	case e.name.Counted:
		v.Health, v.Left = Trial, e.name.Left
	}
	return v
}

// holds reports whether a partition has the root at its end that v names.
func holds(p Partition, v release.Verity) bool {
	if v.Blocks >= uint64(p.Size()/release.BlockSize) {
		return false
	}
	_, ok, err := v.Match(p)
	return ok && err == nil
}

func other(slot string) string {
	if slot == release.PartitionRootA {
		return release.PartitionRootB
	}
	return release.PartitionRootA
}

// readAll reads a file whole.
func readAll(esp ESP, path string) ([]byte, error) {
	f, err := esp.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Size() > uki.MaxSize {
		return nil, fmt.Errorf("%s has %d bytes, which no kernel image has", path, f.Size())
	}
	content := make([]byte, f.Size())
	_, err = io.ReadFull(io.NewSectionReader(f, 0, f.Size()), content)
	return content, err
}
