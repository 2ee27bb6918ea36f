package install

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/linux"
)

// Disk is one disk of a machine.
type Disk struct {
	Name      string // of the kernel, such as vda
	Path      string // by which to name it: the most lasting of Names
	Names     []string
	Model     string
	Size      int64 // bytes
	ReadOnly  bool
	Removable bool
	Contents  []Content
	// Problem says why Oscine is not installed on it, with the next step; empty
	// where nothing speaks against it.
	Problem string
	// Member says that it belongs to a group of disks, such as a RAID, which is not
	// in use; or that it may, as not all of it could be read.
	Member bool
}

// Content is a partition, or what a disk without partitions holds.
type Content struct {
	Device string // of the kernel, such as vda1
	Name   string // of the partition
	Size   int64  // bytes
	Signature
}

// Machine is where the disks are looked for. The zero value is this machine.
type Machine struct {
	// Root is a folder with copies of /sys, /proc and /dev, for tests.
	Root string
	// System is the kernel name of the disk that the machine runs from, where that
	// is known.
	System string
}

func (m Machine) at(path string) string { return filepath.Join("/", m.Root, path) }

func (m Machine) block(name string) string { return m.at("/sys/class/block/" + name) }

// Disks lists the disks that firmware could start from, by name.
func (m Machine) Disks() ([]Disk, error) {
	entries, err := os.ReadDir(m.at("/sys/class/block"))
	if err != nil {
		return nil, fmt.Errorf("list the disks: %w", err)
	}
	var disks []Disk
	for _, e := range entries {
		dir := m.block(e.Name())
		if _, err := os.Stat(filepath.Join(dir, "device")); err != nil || strings.HasPrefix(e.Name(), "sr") || strings.HasPrefix(e.Name(), "fd") {
			continue // a partition, a virtual device or a drive for other media
		}
		if hidden, _ := readNumber(filepath.Join(dir, "hidden")); hidden == 1 {
			continue // one path of an NVMe namespace with several, which is listed itself
		}
		d, err := m.disk(e.Name())
		if err == nil && d.Size > 0 {
			disks = append(disks, d)
		}
	}
	slices.SortFunc(disks, func(a, b Disk) int { return cmp.Compare(a.Name, b.Name) })
	return disks, nil
}

// ErrNoDisk is returned for a name that no disk has.
var ErrNoDisk = errors.New("there is no such disk")

// Find returns the disk of a name: a path such as /dev/vdb or
// /dev/disk/by-id/nvme-X, or the last part of one.
func (m Machine) Find(name string) (Disk, error) {
	disks, err := m.Disks()
	if err != nil {
		return Disk{}, err
	}
	var found []Disk
	for _, d := range disks {
		if slices.Contains(d.Names, name) || slices.Contains(d.Names, "/dev/"+name) || slices.Contains(d.Names, byID+name) {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
	case 1:
		return found[0], nil
	default:
		return Disk{}, fmt.Errorf("%w: %s is the name of both /dev/%s and /dev/%s: give one of those", ErrRefused, name, found[0].Name, found[1].Name)
	}
	// One that is not listed, such as a loop device, or a link to a disk.
	path := name
	if !filepath.IsAbs(path) {
		path = "/dev/" + path
	}
	real, err := filepath.EvalSymlinks(m.at(path))
	if err != nil {
		return Disk{}, fmt.Errorf("%w: %s: see oscine install --list", ErrNoDisk, name)
	}
	kernel := filepath.Base(real)
	if _, err := os.Stat(filepath.Join(m.block(kernel), "partition")); err == nil {
		return Disk{}, fmt.Errorf("%s is a partition: give the whole disk, see oscine install --list", name)
	}
	d, err := m.disk(kernel)
	if err != nil {
		return Disk{}, fmt.Errorf("%w: %s is no disk: see oscine install --list", ErrNoDisk, name)
	}
	return d, nil
}

const byID = "/dev/disk/by-id/"

// disk describes a whole disk by its kernel name.
func (m Machine) disk(name string) (Disk, error) {
	dir := m.block(name)
	size, err := readNumber(filepath.Join(dir, "size"))
	if err != nil {
		return Disk{}, err
	}
	d := Disk{Name: name, Size: size * 512, Model: model(dir)}
	readOnly, _ := readNumber(filepath.Join(dir, "ro")) // absent: writing tells
	removable, _ := readNumber(filepath.Join(dir, "removable"))
	d.ReadOnly, d.Removable = readOnly == 1, removable == 1
	d.Names = append(lasting(dir, name, d.Model), "/dev/"+name)
	d.Path = d.Names[0]
	parts := m.partitions(name)
	if d.Size == 0 {
		return d, nil
	}
	whole := m.content(name, "", d.Size)
	if len(parts) == 0 && whole.Type != "" || whole.Problem != "" || whole.Member {
		d.Contents = append(d.Contents, whole)
	}
	d.Contents = append(d.Contents, parts...)
	for _, c := range d.Contents {
		d.Member = d.Member || c.Member || c.Problem != ""
	}
	d.Problem = m.problem(d, parts)
	return d, nil
}

func (m Machine) content(device, name string, size int64) Content {
	c := Content{Device: device, Name: name, Size: size}
	f, err := os.Open(m.at("/dev/" + device))
	if err != nil {
		c.Problem = err.Error()
		return c
	}
	defer f.Close()
	c.Signature = probe(f, size)
	return c
}

// partitions lists the partitions of a disk as the kernel knows them.
func (m Machine) partitions(disk string) []Content {
	entries, err := os.ReadDir(m.block(disk))
	if err != nil {
		return nil
	}
	type numbered struct {
		number int64
		Content
	}
	var all []numbered
	for _, e := range entries {
		dir := filepath.Join(m.block(disk), e.Name())
		number, err := readNumber(filepath.Join(dir, "partition"))
		if err != nil {
			continue
		}
		sectors, _ := readNumber(filepath.Join(dir, "size")) // it may be gone again
		uevent, _ := linux.ReadUevent(filepath.Join(dir, "uevent"))
		all = append(all, numbered{number, m.content(e.Name(), uevent["PARTNAME"], sectors*512)})
	}
	slices.SortFunc(all, func(a, b numbered) int { return cmp.Compare(a.number, b.number) })
	parts := make([]Content, len(all))
	for i := range all {
		parts[i] = all[i].Content
	}
	return parts
}

// lasting are the names of a disk that do not depend on the order in which disks
// are found, as udev makes them; the node runs no udev.
func lasting(dir, name, model string) []string {
	var names []string
	add := func(parts ...string) {
		if !slices.Contains(parts, "") {
			names = append(names, byID+strings.Join(parts, ""))
		}
	}
	serial, wwid := readText(filepath.Join(dir, "serial"), filepath.Join(dir, "device/serial")), readText(filepath.Join(dir, "wwid"), filepath.Join(dir, "device/wwid"))
	switch {
	case strings.HasPrefix(name, "vd"):
		add("virtio-", udevName(serial))
	case strings.HasPrefix(name, "nvme"):
		if id := readText(filepath.Join(dir, "nsid")); id != "" && id != "1" {
			add("nvme-", udevName(model), "_", udevName(serial), "_", udevName(id))
		} else {
			add("nvme-", udevName(model), "_", udevName(serial))
		}
		add("nvme-", udevName(wwid))
	case strings.HasPrefix(name, "mmcblk"):
		add("mmc-", udevName(readText(filepath.Join(dir, "device/name"))), "_", udevName(serial))
	case strings.HasPrefix(wwid, "naa."):
		add("wwn-0x", udevName(strings.TrimPrefix(wwid, "naa.")))
	}
	return names
}

// udevName replaces what udev does in names (systemd, util_replace_chars).
func udevName(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || strings.ContainsRune("#+-.:=@_", r) {
			return r
		}
		return '_'
	}, strings.Join(strings.Fields(text), "_"))
}

func model(dir string) string {
	vendor, model := readText(filepath.Join(dir, "device/vendor")), readText(filepath.Join(dir, "device/model"), filepath.Join(dir, "device/name"))
	if strings.HasPrefix(vendor, "0x") || vendor == "ATA" {
		vendor = ""
	}
	return strings.TrimSpace(vendor + " " + model)
}

// readText reads the first of some small files that is there, without the space
// around it.
func readText(files ...string) string {
	for _, file := range files {
		if raw, err := os.ReadFile(file); err == nil && len(raw) < 4096 {
			return strings.TrimSpace(strings.Trim(string(raw), "\x00"))
		}
	}
	return ""
}

func readNumber(file string) (int64, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
}

// problem says why a disk must not be written.
func (m Machine) problem(d Disk, parts []Content) string {
	devices := []string{d.Name}
	for _, p := range parts {
		devices = append(devices, p.Device)
	}
	if d.Name == m.System {
		return "this machine runs from it: boot Oscine from another disk, such as a USB stick, to install it here"
	}
	if strings.HasPrefix(d.Name, "dm-") || strings.HasPrefix(d.Name, "md") {
		return "it is made of other devices, and no firmware starts from it: give a disk"
	}
	if d.ReadOnly {
		return "it is read-only: switch off its write protection"
	}
	if where := m.mounted(devices); where != "" {
		return where
	}
	for _, device := range devices {
		holders, _ := os.ReadDir(filepath.Join(m.block(device), "holders")) // none where it is absent
		if len(holders) > 0 {
			return fmt.Sprintf("%s is in use by %s (LVM, RAID or encryption): take that apart first", device, holders[0].Name())
		}
	}
	// The kernel has the last word: what is mounted elsewhere, swap and more.
	f, err := os.OpenFile(m.at("/dev/"+d.Name), os.O_RDONLY|unix.O_EXCL, 0)
	if err == nil {
		return errorText(f.Close())
	}
	if errors.Is(err, unix.EBUSY) {
		return "another program uses it: end that first"
	}
	return "it cannot be opened: " + err.Error()
}

func errorText(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

// mounted says where one of the devices is mounted or swapped to.
func (m Machine) mounted(devices []string) string {
	numbers := map[string]string{} // major:minor → device
	for _, device := range devices {
		numbers[readText(filepath.Join(m.block(device), "dev"))] = device
	}
	mounts, err := os.ReadFile(m.at("/proc/self/mountinfo"))
	if err != nil {
		return "it is not known what is mounted: " + err.Error()
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		device, ok := numbers[fields[2]]
		if _, rest, found := strings.Cut(line, " - "); !ok && found { // btrfs has numbers of its own
			if source := strings.Fields(rest); len(source) > 1 && slices.Contains(devices, strings.TrimPrefix(source[1], "/dev/")) {
				device, ok = strings.TrimPrefix(source[1], "/dev/"), true
			}
		}
		if ok {
			return fmt.Sprintf("%s is mounted at %s: unmount it first", device, fields[4])
		}
	}
	swaps, _ := os.ReadFile(m.at("/proc/swaps")) // absent where the kernel has no swap
	for line := range strings.Lines(string(swaps)) {
		if fields := strings.Fields(line); len(fields) > 0 && slices.Contains(devices, strings.TrimPrefix(fields[0], "/dev/")) {
			return fmt.Sprintf("%s is used as swap: switch that off first (swapoff)", fields[0])
		}
	}
	return ""
}
