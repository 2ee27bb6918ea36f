package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/image/layout"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/printable"
	"oscine.dev/oscine/internal/release"
)

// Options say how a disk is written.
type Options struct {
	// Machine is a manifest for the first boot to take; nil for none.
	Machine []byte
	// KeepData leaves partition table and data partition of a disk with Oscine as
	// they are.
	KeepData bool
	// Force takes a disk too that belongs to a group of disks which is not in use.
	Force bool
	// Path and Size are those of the disk that was shown and agreed to; another
	// disk is refused. An empty Path stands for any.
	Path string
	Size int64
	// Report is told how far it is; nil for nobody.
	Report func(Progress)
}

// Progress says how far an installation is.
type Progress struct {
	Step        string // what is done now
	Done, Total int64  // bytes of all steps
}

// ErrRefused is returned for a disk that must not be written; nothing was changed.
var ErrRefused = errdefs.ErrFailedPrecondition.WithMessage("the disk is refused")

// Check refuses a disk that a version cannot be put on, and changes nothing.
// Errors: ErrRefused, ErrSource.
func (m Machine) Check(d Disk, s *Source, o Options) error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s: %w", ErrRefused, d.Path, fmt.Errorf(format, args...))
	}
	switch {
	case o.Path != "" && (o.Path != d.Path || o.Size != d.Size):
		return refuse("/dev/%s is not the disk %s of %s that was shown: see oscine install --list, and try again", d.Name, o.Path, printable.Bytes(o.Size))
	case s.Arch != runtime.GOARCH:
		return fmt.Errorf("%w: %s is for %s, and this machine is %s: take its image for %s", ErrSource, s.Version, s.Arch, runtime.GOARCH, runtime.GOARCH)
	case d.Problem != "":
		return refuse("%s", d.Problem)
	case unread(d) != "" && !o.Force:
		return refuse("what it holds could not be read (%s): use --force to write it all the same", unread(d))
	case d.Member && !o.Force:
		return refuse("it belongs to a volume group, an array or a pool that is not in use (%s): use --force if that is no longer needed", members(d))
	case o.KeepData && o.Machine != nil:
		return refuse("its data partition keeps the Machine that it has: install without --machine, and use oscine config apply later")
	}
	if o.KeepData {
		return nil // what it must have is looked at once it is open
	}
	if _, err := layout.Plan(d.Size, s.size(), release.EmptyDataSize); err != nil {
		return refuse("%w", err)
	}
	return nil
}

// unread says what of a disk could not be read, and why; empty for nothing.
func unread(d Disk) string {
	var all []string
	for _, c := range d.Contents {
		if c.Problem != "" {
			all = append(all, c.Device+": "+c.Problem)
		}
	}
	return strings.Join(all, ", ")
}

func members(d Disk) string {
	var names []string
	for _, c := range d.Contents {
		if c.Member {
			names = append(names, c.Device+" "+c.Type)
		}
	}
	return strings.Join(names, ", ")
}

// Install puts a version on a disk, and returns when all of it was read back. Until
// then no firmware starts from the disk: an installation that was interrupted is
// begun again. Errors: ErrRefused and ErrSource, with nothing changed; others.
func (m Machine) Install(ctx context.Context, d Disk, s *Source, o Options) error {
	if err := m.Check(d, s, o); err != nil {
		return err
	}
	f, err := os.OpenFile(m.at("/dev/"+d.Name), os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrRefused, d.Path, err)
	}
	// udev keeps away from a disk that is locked (systemd, Locking Block Device Access).
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("%w: %s: another program has locked it: try again", ErrRefused, d.Path), f.Close())
	}
	w, err := newWriter(ctx, f, s, o)
	if err != nil {
		return errors.Join(fmt.Errorf("%w: %s: %w", ErrRefused, d.Path, err), f.Close())
	}
	if err = errors.Join(w.install(), f.Close()); err != nil {
		left := "no machine starts from it now"
		if w.last {
			left = "whether a machine starts from it is not certain"
		}
		return fmt.Errorf("install on %s: %w; %s: install again", d.Path, err, left)
	}
	return nil
}

// newWriter looks at an open disk, and changes nothing.
func newWriter(ctx context.Context, f *os.File, s *Source, o Options) (*writer, error) {
	size, err := linux.DeviceSize(f)
	if err != nil {
		return nil, err
	}
	sector, err := linux.SectorSize(f)
	if err != nil {
		return nil, err
	}
	if sector != layout.SectorSize {
		return nil, fmt.Errorf("it has sectors of %d bytes, and Oscine's disks have ones of %d: give the disk another format (as nvme format does), or take another", sector, layout.SectorSize)
	}
	w := &writer{ctx: ctx, disk: f, size: size / layout.SectorSize * layout.SectorSize, source: s, options: o}
	w.reread = w.readPartitions
	if o.KeepData {
		err = w.keep()
	} else {
		w.layout, err = layout.Plan(w.size, s.size(), release.EmptyDataSize)
	}
	return w, err
}

// keep takes the layout that the disk has.
func (w *writer) keep() error {
	parts, err := layout.ReadTable(w.disk, w.size)
	if err != nil {
		return fmt.Errorf("%w: there is no data to keep: install without --keep-data", err)
	}
	for _, name := range release.Partitions() {
		if parts[name].Size == 0 {
			return fmt.Errorf("it has no partition %s, so is no disk of Oscine: install without --keep-data", name)
		}
	}
	a, data := parts[release.PartitionRootA], parts[release.PartitionData]
	w.layout = layout.Layout{Disk: data.Start + data.Size + layout.MiB, Slot: a.Size}
	for _, p := range w.layout.Partitions() {
		if parts[p.Name] != p {
			return fmt.Errorf("its partition %s lies elsewhere than in this version of Oscine: copy its data, and install without --keep-data", p.Name)
		}
	}
	if a.Size < w.source.size() {
		return fmt.Errorf("its slots have %s, and the root needs %s: copy its data, and install without --keep-data", printable.Bytes(a.Size), printable.Bytes(w.source.size()))
	}
	return nil
}

// newID names the disk and each partition by chance: two disks in one machine must
// not have the same.
func newID(string) string { return strings.ToUpper(uuid.NewString()) }
