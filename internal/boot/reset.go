package boot

import (
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/disk/empty"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
)

// resetWanted reports that the data partition is to be erased. The daemon leaves
// two marks: the file on the ESP counts, and is the first to come and the last to
// go; the one on the data partition spares every other boot from mounting the ESP.
// A partition that is half erased cannot be mounted, and one that was just erased
// has no state: then the ESP is asked. That of a disk image has none either before its
// first boot.
func resetWanted(log *Log, parts []linux.Partition, disk string, d stage1Data) bool {
	if d.mounted.Device != "" && (inUse(newData) || !d.encrypted && isNew(newData, d.part.Node())) {
		return false
	}
	if _, ok := linux.FindPartition(parts, disk, release.PartitionData); !ok {
		return false
	}
	esp, ok := linux.FindPartition(parts, disk, release.PartitionESP)
	if !ok {
		return false
	}
	wanted := false
	err := linux.WithESP(esp, stage1ESP, unix.MS_RDONLY, func(dir string) error {
		wanted = markedForReset(dir, d.locked != "")
		return nil
	})
	if err != nil {
		log.Error("cannot tell whether the data partition is to be erased: %v", err)
	}
	return wanted
}

// markedForReset reports that the mounted ESP has the mark. A partition that is locked
// is encrypted already: the mark of a node that was about to do that is an old one then,
// and only a person's has it erased.
func markedForReset(esp string, locked bool) bool {
	said, err := os.ReadFile(filepath.Join(esp, release.ESPReset))
	return err == nil && !(locked && string(said) == release.ESPResetKeeps)
}

// inUse reports that a mounted data partition holds state, and no mark that it is
// to be erased.
func inUse(data string) bool {
	state := filepath.Join(data, stateDir)
	return exists(state) && !exists(filepath.Join(state, release.ResetMark))
}

// isNew reports that a mounted data partition is that of a disk image, and never held
// state. Every reset makes another in its place.
func isNew(data, node string) bool {
	label, err := ext4Label(node)
	return err == nil && label == release.ImageLabel && !exists(filepath.Join(data, stateDir))
}

// resetData erases the data partition, writes an empty file system into it and
// mounts that; the root is mounted already. Power may fail at any point: the mark on
// the ESP goes last, and the next boot begins again. What was encrypted is not any
// more: that is for the next Machine to say.
func resetData(log *Log, m *modules, parts []linux.Partition, disk string, d stage1Data) stage1Data {
	began := time.Now()
	log.Notice("reset: erasing the data partition")
	if err := unix.Unmount(newData, 0); err != nil {
		log.Error("reset: %v", err)
		return stage1Data{part: d.part, encrypted: d.encrypted, locked: d.locked} // what is mounted there stays
	}
	var err error
	if d.encrypted {
		err = removeDataMapping()
	}
	if err == nil {
		err = empty.Make(d.part.Node(), filepath.Join(newRoot, release.EmptyData), func() { armWatchdog(log) })
	}
	if err == nil {
		esp, _ := linux.FindPartition(parts, disk, release.PartitionESP)
		err = linux.WithESP(esp, stage1ESP, 0, forgetReset)
	}
	if err != nil {
		log.Error("reset: %v: the next boot tries again", err)
	} else {
		log.Notice("reset: the data partition is empty, after %d ms", ms(began, time.Now()))
	}
	d = stage1Data{part: d.part}
	d.mountPlain(log, m, parts, disk)
	return d
}

// forgetReset takes the mark from the mounted ESP, and a Machine that still waits
// there: it is a part of what was to be erased, unless the mark says otherwise.
func forgetReset(esp string) error {
	mark := filepath.Join(esp, release.ESPReset)
	if said, err := os.ReadFile(mark); err != nil || string(said) != release.ESPResetKeeps {
		if err := wipe(filepath.Join(esp, release.ESPMachine)); err != nil {
			return err
		}
	}
	if err := os.Remove(mark); err != nil {
		return err
	}
	return linux.FlushFileSystem(esp)
}
