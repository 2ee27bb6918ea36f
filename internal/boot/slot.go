package boot

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
)

// slot is the partition that holds the root this kernel was built with.
type slot struct {
	linux.Partition
	hashStart uint64 // first block of the hash tree
}

// How long stage 1 waits for disks to appear: slowly probing ones at all; further
// ones once both slots of a disk are there and neither fits; and the one that the
// system was started from, where another holds the same root.
const (
	diskTimeout   = 60 * time.Second
	settleTimeout = 5 * time.Second
	pollInterval  = 10 * time.Millisecond
)

// errNoSlot is returned when no partition holds the root of this kernel.
var errNoSlot = errors.New("no slot holds the root of this version")

// waitSlot waits for the disk with the slot of v. preferESP is the partition
// GUID of the ESP this system was started from ("" when unknown): with several
// Oscine disks in a machine, the root comes from that disk, if it appears in time.
func waitSlot(log *Log, m *modules, v release.Verity, preferESP string) (slot, []linux.Partition, error) {
	began := time.Now()
	deadline := began.Add(diskTimeout)
	settled := false
	seen := map[string]string{} // device → why it is refused
	for {
		now := time.Now()
		parts, err := linux.Partitions("/sys")
		if err != nil {
			return slot{}, nil, err
		}
		if s, ok := chooseSlot(parts, v, preferESP, now.Sub(began) >= settleTimeout, seen, openDevice); ok {
			return s, parts, nil
		}
		if len(seen) >= 2 && !settled {
			settled = true
			if d := now.Add(settleTimeout); d.Before(deadline) {
				deadline = d
			}
		}
		if now.After(deadline) {
			return slot{}, parts, refusal(parts, seen)
		}
		time.Sleep(pollInterval)
		m.coldplug(log, "/sys") // what has appeared meanwhile, such as a disk on USB
	}
}

func refusal(parts []linux.Partition, seen map[string]string) error {
	if len(seen) == 0 {
		return fmt.Errorf("%w: no partition named %s or %s among %d partitions (is the disk's driver in the initramfs?)",
			errNoSlot, release.PartitionRootA, release.PartitionRootB, len(parts))
	}
	var reasons []string
	for _, p := range parts {
		if why := seen[p.Device]; why != "" {
			reasons = append(reasons, fmt.Sprintf("%s on %s: %s", p.Name, p.Device, why))
		}
	}
	return fmt.Errorf("%w: %s", errNoSlot, strings.Join(reasons, "; "))
}

// opener opens the device of a partition for reading.
type opener func(linux.Partition) (*os.File, error)

func openDevice(p linux.Partition) (*os.File, error) { return os.Open(p.Node()) }

// chooseSlot returns the slot of v among parts, and notes in refused why the
// others are not it. One on another disk than that of preferESP is taken only with
// anyDisk.
func chooseSlot(parts []linux.Partition, v release.Verity, preferESP string, anyDisk bool, refused map[string]string, open opener) (slot, bool) {
	var found []slot
	for _, p := range parts {
		if !release.IsSlot(p.Name) {
			continue
		}
		hashStart, err := matchPartition(p, v, open)
		if err != nil {
			refused[p.Device] = err.Error()
			continue
		}
		found = append(found, slot{p, hashStart})
	}
	for _, s := range found {
		esp, ok := linux.FindPartition(parts, s.Disk, release.PartitionESP)
		if ok && preferESP != "" && esp.UUID == preferESP {
			return s, true
		}
	}
	if len(found) == 0 || preferESP != "" && !anyDisk {
		return slot{}, false
	}
	return found[0], true
}

func matchPartition(p linux.Partition, v release.Verity, open opener) (uint64, error) {
	f, err := open(p)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	hashStart, ok, err := v.Match(f)
	if err != nil {
		return 0, fmt.Errorf("cannot read its hash tree: %w", err)
	}
	if !ok {
		return 0, errors.New("the top of its hash tree does not have this version's root hash (another version, or damaged)")
	}
	return hashStart, nil
}
