package isolate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/object"
)

// latencyTarget is what a class's requests may take, in microseconds, before
// the kernel holds those of looser classes back: far above what a disk of the
// kind needs when it is free, far below what a full queue of another class
// makes of it. 0 is no target.
func latencyTarget(c object.Class, turns bool) int {
	solid, turning := 0, 0
	switch c {
	case Realtime:
		solid, turning = 2_000, 50_000
	case Interactive:
		solid, turning = 5_000, 75_000
	case System:
		solid, turning = 10_000, 100_000
	}
	if turns {
		return turning
	}
	return solid
}

const guaranteeIO = "disk time by class"

// divideDisk makes io.weight count on the disk below a folder. By itself it is
// a number that nobody reads: the kernel's cost model, io.cost, is what
// divides a disk by it, and io.latency what stands in for it. See "IO" in
// Documentation/admin-guide/cgroup-v2.rst.
func (i *Isolator) divideDisk(folder string) []Gap {
	disk, turns, err := i.diskBelow(folder)
	if err != nil {
		return []Gap{{guaranteeIO, err.Error()}}
	}
	return i.divide(disk, turns)
}

func (i *Isolator) divide(disk string, turns bool) []Gap {
	// The model's parameters stay the kernel's own for the kind of disk, until
	// somebody measures this one and writes them.
	err := writeFile(i.cg.path("io.cost.qos"), disk+" enable=1")
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return []Gap{{guaranteeIO, fmt.Sprintf("io.cost cannot be enabled for disk %s: %v", disk, err)}}
	}
	for _, c := range []object.Class{Realtime, Interactive, System} {
		err := i.cg.set(filepath.Join(i.o.Slice, string(c)), "io.latency", fmt.Sprintf("%s target=%d", disk, latencyTarget(c, turns)))
		if errors.Is(err, fs.ErrNotExist) {
			return []Gap{{guaranteeIO, "this kernel has neither io.cost nor io.latency: what is read and written waits in one queue"}}
		}
		if err != nil {
			return []Gap{{guaranteeIO, err.Error()}}
		}
	}
	return nil
}

// diskBelow returns, as major:minor, the disk that a folder's file system lies
// on, and whether it turns.
func (i *Isolator) diskBelow(folder string) (disk string, turns bool, err error) {
	var st unix.Stat_t
	if err := unix.Stat(folder, &st); err != nil {
		return "", false, fmt.Errorf("find the disk of %s: %w", folder, err)
	}
	dir := i.host.file("sys/dev/block", fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	for range 8 { // layers of device mapper
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return "", false, fmt.Errorf("%s lies on no disk of its own", folder)
		}
		if exists(filepath.Join(real, "partition")) {
			real = filepath.Dir(real)
		}
		below, err := os.ReadDir(filepath.Join(real, "slaves"))
		if err == nil && len(below) > 1 {
			return "", false, fmt.Errorf("%s lies on %d disks together, which the kernel does not divide by class", folder, len(below))
		}
		if err == nil && len(below) == 1 {
			dir = filepath.Join(real, "slaves", below[0].Name())
			continue
		}
		number, err := readFile(filepath.Join(real, "dev"))
		if err != nil {
			return "", false, fmt.Errorf("find the disk of %s: %w", folder, err)
		}
		rotational, err := readFile(filepath.Join(real, "queue/rotational"))
		return number, err == nil && strings.TrimSpace(rotational) == "1", nil
	}
	return "", false, fmt.Errorf("%s lies on too many layers of devices", folder)
}
