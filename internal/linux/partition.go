package linux

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Partition is one named GPT partition as the kernel shows it in sysfs.
type Partition struct {
	Device string // kernel name, such as vda2; the node is /dev/vda2
	Disk   string // kernel name of the whole disk, such as vda
	Name   string // GPT partition name, such as root-a
	UUID   string // GPT partition GUID in lower case; "" where the kernel does not tell
	Number int    // 1-based
	Start  int64  // bytes from the start of the disk
	Size   int64  // bytes
}

// Node is the device node.
func (p Partition) Node() string { return "/dev/" + p.Device }

// Partitions returns the partitions that have a GPT name, in the order of
// their kernel names. sys is the root of sysfs, normally /sys.
func Partitions(sys string) ([]Partition, error) {
	class := filepath.Join(sys, "class/block")
	entries, err := os.ReadDir(class)
	if err != nil {
		return nil, err
	}
	var parts []Partition
	for _, entry := range entries {
		if p, ok := readPartition(filepath.Join(class, entry.Name())); ok {
			parts = append(parts, p)
		}
	}
	return parts, nil
}

// readPartition reads one block device; false for whole disks, partitions
// without a name, and devices that vanish meanwhile.
func readPartition(dir string) (Partition, bool) {
	uevent, err := ReadUevent(filepath.Join(dir, "uevent"))
	if err != nil || uevent["DEVTYPE"] != "partition" || uevent["PARTNAME"] == "" {
		return Partition{}, false
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return Partition{}, false
	}
	number, errNumber := strconv.Atoi(uevent["PARTN"])
	start, errStart := readSectors(filepath.Join(dir, "start"))
	size, errSize := readSectors(filepath.Join(dir, "size"))
	if errors.Join(errNumber, errStart, errSize) != nil {
		return Partition{}, false
	}
	return Partition{
		Device: filepath.Base(real),
		Disk:   filepath.Base(filepath.Dir(real)),
		Name:   uevent["PARTNAME"],
		UUID:   strings.ToLower(uevent["PARTUUID"]),
		Number: number,
		Start:  start,
		Size:   size,
	}, true
}

// ReadUevent reads the KEY=value lines of a uevent file in sysfs.
func ReadUevent(file string) (map[string]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	values := map[string]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), "="); ok {
			values[key] = value
		}
	}
	return values, lines.Err()
}

// readSectors reads a sysfs count of 512-byte sectors, the unit of sysfs
// whatever the disk's own sector is, and returns bytes.
func readSectors(file string) (int64, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
	return n * 512, err
}

// FindPartition returns the partition with the GPT name on disk.
func FindPartition(parts []Partition, disk, name string) (Partition, bool) {
	for _, p := range parts {
		if p.Disk == disk && p.Name == name {
			return p, true
		}
	}
	return Partition{}, false
}
