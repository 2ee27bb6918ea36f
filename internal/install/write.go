package install

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/image/layout"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
)

// writer writes one disk.
type writer struct {
	ctx     context.Context
	disk    *os.File // or a file, for tests
	size    int64    // of the disk, bytes
	layout  layout.Layout
	source  *Source
	options Options

	reread func() error // has the kernel read the partition table again
	last   bool         // what makes the disk start is being written: no turning back

	step string
	done int64
}

// install writes the disk in an order that leaves nothing to start from before all
// of it is there and was read back: the partition table comes last, or where that
// is kept, the boot loader, which firmware looks for.
func (w *writer) install() error {
	parts := map[string]layout.Partition{}
	for _, p := range w.layout.Partitions() {
		parts[p.Name] = p
	}
	esp, slot, data := parts[release.PartitionESP], parts[release.PartitionRootA], parts[release.PartitionData]
	files, loader := w.source.bootFiles(w.options.Machine)

	w.say("take away what firmware would start")
	if err := w.clear(esp, parts[release.PartitionRootB]); err != nil {
		return err
	}
	if !w.options.KeepData {
		w.say("write the data partition")
		if err := w.writeData(data); err != nil {
			return err
		}
	}
	w.say("write the root")
	if err := w.copy(slot.Start, w.source.reader(), w.source.size(), false); err != nil {
		return err
	}
	w.say("write the disk's cache")
	if err := w.flush(); err != nil {
		return err
	}
	w.say("read the root back")
	if err := w.compare(slot.Start, w.source.reader(), w.source.size(), "the root"); err != nil {
		return err
	}
	if !w.options.KeepData {
		if err := w.checkData(data); err != nil {
			return err
		}
	}
	w.say("write the kernel image")
	if err := layout.WriteESP(w.disk, files, time.Now()); err != nil {
		return fmt.Errorf("write the ESP: %w", err)
	}
	if err := w.flush(); err != nil {
		return err
	}
	if err := w.checkESP(esp, files); err != nil {
		return err
	}
	w.say("write the boot loader")
	if err := w.ctx.Err(); err != nil {
		return err
	}
	w.last = w.options.KeepData
	if err := layout.AddToESP(w.disk, []layout.File{loader}, time.Now()); err != nil {
		return fmt.Errorf("write the boot loader: %w", err)
	}
	if err := linux.Flush(w.disk); err != nil {
		return err
	}
	if err := w.checkESP(esp, append(files, loader)); err != nil {
		return err
	}
	if w.options.KeepData {
		return nil
	}
	w.say("write the partition table")
	return w.writeTable()
}

// clear empties the ESP, and takes the partition table away; where that is kept, the
// beginning of the other slot.
func (w *writer) clear(esp, other layout.Partition) error {
	if !w.options.KeepData {
		for _, at := range []int64{0, max(w.size-layout.MiB, 0) / layout.SectorSize * layout.SectorSize} {
			if err := linux.ZeroRange(w.disk, at, min(layout.MiB, w.size-at)); err != nil {
				return err
			}
		}
	}
	if err := linux.ZeroRange(w.disk, esp.Start, esp.Size); err != nil {
		return err
	}
	if w.options.KeepData {
		// The node writes a kernel image on the ESP again, from its copy among the data,
		// while the root of that is in a slot.
		if err := linux.ZeroRange(w.disk, other.Start, layout.MiB); err != nil {
			return err
		}
	}
	if err := w.flush(); err != nil {
		return err
	}
	if w.options.KeepData {
		return nil
	}
	return w.reread()
}

// readPartitions tells the kernel of another partition table. A plain file has none
// that it knew.
func (w *writer) readPartitions() error {
	info, err := w.disk.Stat()
	if err != nil || info.Mode()&os.ModeDevice == 0 {
		return err
	}
	err = linux.ReadPartitions(w.disk)
	if errors.Is(err, unix.EINVAL) {
		return nil // a device that has no partitions, such as a loop device made without
	}
	return err
}

func (w *writer) writeTable() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	w.last = true
	if err := w.layout.WriteTable(w.disk, w.size, newID); err != nil {
		return err
	}
	if err := linux.Flush(w.disk); err != nil {
		return err
	}
	got, err := layout.ReadTable(w.disk, w.size)
	if err != nil {
		return fmt.Errorf("the partition table that was written cannot be read back: %w: the disk may be failing", err)
	}
	for _, p := range w.layout.Partitions() {
		if got[p.Name] != p {
			return fmt.Errorf("partition %s is not as it was written: the disk may be failing", p.Name)
		}
	}
	if err := w.reread(); err != nil { // the disk is whole
		w.say("warning: this machine shows its new partitions after a restart only: " + err.Error())
	}
	return nil
}

// writeData writes the data partition. What is not used of its file system is
// zero, and much faster written as such.
func (w *writer) writeData(data layout.Partition) error {
	if err := linux.ZeroRange(w.disk, data.Start, release.EmptyDataSize); err != nil {
		return err
	}
	r, err := gzip.NewReader(bytes.NewReader(w.source.data))
	if err != nil {
		return err
	}
	defer r.Close()
	return w.copy(data.Start, r, release.EmptyDataSize, true)
}

func (w *writer) checkData(data layout.Partition) error {
	r, err := gzip.NewReader(bytes.NewReader(w.source.data))
	if err != nil {
		return err
	}
	defer r.Close()
	return w.compare(data.Start, r, release.EmptyDataSize, "the data partition")
}

// chunk is how much is written at once, in bytes.
const chunk = 1 << 20

// copy writes size bytes of r at an offset. sparse says that it is zero there
// already.
func (w *writer) copy(at int64, r io.Reader, size int64, sparse bool) error {
	zero := make([]byte, chunk)
	return w.each(r, size, func(block []byte, done int64) error {
		if sparse && bytes.Equal(block, zero[:len(block)]) {
			return nil
		}
		_, err := w.disk.WriteAt(block, at+done)
		return err
	})
}

// compare reads back what copy wrote.
func (w *writer) compare(at int64, r io.Reader, size int64, what string) error {
	got := make([]byte, chunk)
	return w.each(r, size, func(block []byte, done int64) error {
		if _, err := w.disk.ReadAt(got[:len(block)], at+done); err != nil {
			return fmt.Errorf("read %s back: %w", what, err)
		}
		if !bytes.Equal(got[:len(block)], block) {
			return fmt.Errorf("%s is not as it was written, within the MiB at byte %d: the disk may be failing", what, at+done)
		}
		return nil
	})
}

// each calls f with size bytes of r, piece by piece.
func (w *writer) each(r io.Reader, size int64, f func(block []byte, done int64) error) error {
	block := make([]byte, chunk)
	for done := int64(0); done < size; {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		next := block[:min(chunk, size-done)]
		if _, err := io.ReadFull(r, next); err != nil {
			return fmt.Errorf("read what is to be installed: %w", err)
		}
		if err := f(next, done); err != nil {
			return err
		}
		done += int64(len(next))
		w.add(len(next))
	}
	return nil
}

func (w *writer) checkESP(esp layout.Partition, files []layout.File) error {
	fat, err := layout.OpenFAT(io.NewSectionReader(w.disk, esp.Start, esp.Size), esp.Size)
	if err != nil {
		return fmt.Errorf("read the ESP back: %w", err)
	}
	for _, f := range files {
		got, err := fat.ReadFile(f.Path, int64(len(f.Data)))
		if err != nil {
			return fmt.Errorf("read %s back: %w", f.Path, err)
		}
		if !bytes.Equal(got, f.Data) {
			return fmt.Errorf("%s is not as it was written: the disk may be failing", f.Path)
		}
	}
	return nil
}

// flush returns when all is on the disk; what is read afterwards comes from there.
func (w *writer) flush() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	return linux.Flush(w.disk)
}

// total is how many bytes are written and read back.
func (w *writer) total() int64 {
	total := 2 * w.source.size()
	if !w.options.KeepData {
		total += 2 * release.EmptyDataSize
	}
	return total
}

func (w *writer) say(step string) {
	w.step = step
	w.add(0)
}

func (w *writer) add(n int) {
	w.done += int64(n)
	if w.options.Report != nil {
		w.options.Report(Progress{w.step, w.done, w.total()})
	}
}
