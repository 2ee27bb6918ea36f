package slot

import (
	"fmt"
	"io"
	"path"
	"strings"

	"oscine.dev/oscine/internal/release"
)

// Arm has the boot loader start the staged version next, as often as
// release.Tries. Where that is older than the running one, the running one is put
// behind it: the boot loader takes the newest. It returns when that is on the
// disk. A version that is armed already stays so.
func (s *Slots) Arm(version string) error {
	return s.disk.ESP(func(esp ESP) error {
		state, running, err := s.read(esp)
		if err != nil {
			return err
		}
		if state.Idle.Version != version || state.Idle.Health != Staged && state.Idle.Health != Trial {
			return fmt.Errorf("%s is not staged in slot %s: that holds %s", version, state.Idle.Slot, state.Idle)
		}
		if state.Idle.Health == Staged {
			name := strings.TrimSuffix(path.Base(state.Idle.Image), stagedSuffix)
			if err := esp.Rename(state.Idle.Image, name); err != nil {
				return fmt.Errorf("put the kernel image in place: %w", err)
			}
			if err := esp.Flush(); err != nil {
				return err
			}
		}
		if release.CompareVersions(version, state.Active.Version) > 0 || running.name.Bad() {
			return nil
		}
		if err := replace(esp, running, running.name.Demoted(1).File()); err != nil {
			return fmt.Errorf("put the running version behind the older one: %w", err)
		}
		return nil
	})
}

// Disarm removes every kernel image but the running one's, which becomes good
// again where Arm put it last, and that of a good version in the idle slot, which
// stays the one to go back to. The root in the idle slot stays, and spares
// fetching it once more.
func (s *Slots) Disarm() error {
	return s.disk.ESP(func(esp ESP) error {
		state, running, err := s.read(esp)
		if err != nil {
			return err
		}
		if running.name.Bad() {
			good := running.name.Good().File()
			if err := replace(esp, running, good); err != nil {
				return fmt.Errorf("put the running version first again: %w", err)
			}
			running.path = path.Join(release.ImageFolder, good)
		}
		if state.Idle.Health == Good {
			return clear(esp, running.path, state.Idle.Image)
		}
		return clear(esp, running.path)
	})
}

// replace gives an image another name by a copy: while FAT renames a file, a power
// failure may leave it without either name, and this one must not be lost. The
// copy is whole before the boot loader sees it.
func replace(esp ESP, e entry, name string) error {
	f, err := esp.Open(e.path)
	if err != nil {
		return err
	}
	defer f.Close()
	hidden := path.Join(release.ImageFolder, name+stagedSuffix)
	err = esp.Create(hidden, io.NewSectionReader(f, 0, f.Size()), f.Size())
	if err == nil {
		err = esp.Flush()
	}
	if err == nil {
		err = esp.Rename(hidden, name)
	}
	if err == nil {
		err = esp.Flush()
	}
	if err == nil {
		err = esp.Remove(e.path)
	}
	if err == nil {
		err = esp.Flush()
	}
	return err
}

// String says what a slot holds, for people.
func (v Version) String() string {
	if v.Health == Empty {
		return "nothing that can be started"
	}
	return v.Version + " (" + string(v.Health) + ")"
}
