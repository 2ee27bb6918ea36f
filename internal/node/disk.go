package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/manifest"
)

// diskInterval is how often the data partition is looked at. Where the kernel
// does not count, looking means reading every folder, and is done less often.
const (
	diskInterval  = 2 * time.Second
	countInterval = 10 * time.Second
)

// Reasons of events about the disk.
const (
	reasonDiskFull  = "DiskFull"
	reasonDiskSpace = "DiskSpace"
)

// StorageStatus is what an object holds on the data partition.
type StorageStatus struct {
	Name    string `json:"name"` // volume NAME, or writable layer
	Used    int64  `json:"used"` // bytes
	Limit   int64  `json:"limit,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// storage is one folder of an object's.
type storage struct {
	key   objectKey
	name  string
	dir   string
	limit int64 // of the manifest; 0 for none
	used  int64
	calm  int64 // used when the disk was last not short
	full  bool  // its limit is reached
	// bound is the kernel's limit: that of the manifest, or what is left but the
	// reserve, so that none can take that between two looks.
	bound int64
	// held says why it may not grow while the disk is short: the kernel refuses
	// it or, where it cannot, the object is stopped.
	held string
}

// disks watches what objects hold on the data partition, so that one that
// fills it is named and held back while all others go on. The daemon's own
// state is safe besides: ext4 keeps a reserve that only root may use.
type disks struct {
	disk *isolate.Disk

	mu      sync.Mutex
	folders map[string]*storage // by folder
	short   bool
}

func openDisks(root string) (*disks, error) {
	disk, err := isolate.OpenDisk(root)
	if err != nil {
		return nil, err
	}
	return &disks{disk: disk, folders: map[string]*storage{}}, nil
}

// claim counts a folder as an object's and bounds it. Nobody may write below
// it meanwhile, unless it was claimed before.
func (d *disks) claim(key objectKey, name, dir string, limit int64) error {
	if err := d.disk.Claim(dir); err != nil {
		return fmt.Errorf("count what %s holds: %w", name, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for other, s := range d.folders {
		if s.key == key && s.name == name && other != dir {
			delete(d.folders, other) // the layer of its last run
		}
	}
	s := d.folders[dir]
	if s == nil {
		s = &storage{dir: dir}
		d.folders[dir] = s
		s.used, _ = d.disk.Used(dir) // looked at again soon
		s.calm = s.used
	}
	s.key, s.name, s.limit = key, name, limit
	if s.held != "" {
		return nil
	}
	free, size, err := d.disk.Free()
	if err != nil {
		return err
	}
	s.bound = 0
	return d.boundByRoom(s, free, size)
}

// boundByRoom lets a folder grow up to its limit, and not into the reserve.
func (d *disks) boundByRoom(s *storage, free, size int64) error {
	bound := max(s.used+free-reserve(size), s.used, 1<<20)
	if s.limit > 0 {
		bound = min(bound, s.limit)
	}
	if change := bound - s.bound; max(change, -change) <= bound/64 {
		return nil
	}
	s.bound = bound
	return d.bound(s, bound)
}

func (d *disks) bound(s *storage, limit int64) error {
	err := d.disk.Bound(s.dir, limit)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil // look finds what passes its limit
	}
	return err
}

// forget ends the watch over an object's folders.
func (d *disks) forget(key objectKey) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for dir, s := range d.folders {
		if s.key == key {
			_ = d.bound(s, 0) // it may be gone with its layer
			delete(d.folders, dir)
		}
	}
}

// status lists what an object holds.
func (d *disks) status(key objectKey) []StorageStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []StorageStatus
	for _, s := range d.folders {
		if s.key == key {
			list = append(list, StorageStatus{s.name, s.used, s.limit, s.problem()})
		}
	}
	slices.SortFunc(list, func(a, b StorageStatus) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func (s *storage) problem() string {
	switch {
	case s.held != "":
		return s.held
	case s.full:
		return fmt.Sprintf("its %s is full: %s of %s; delete what it does not need, or raise the limit in its manifest", s.name, humanize.IBytes(uint64(s.used)), humanize.IBytes(uint64(s.limit)))
	}
	return ""
}

// admit refuses to start what filled the disk while it is short, and was
// stopped because the kernel cannot hold it.
func (d *disks) admit(key objectKey) error {
	if d.disk.Limited() {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.folders {
		if s.key == key && s.held != "" {
			return errors.New(s.held)
		}
	}
	return nil
}

// room refuses what would fill the disk further.
func (d *disks) room() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.short {
		return errors.New("the data partition is nearly full: oscine describe shows what workloads hold, oscine image list what images do")
	}
	return nil
}

// diskEvent is what a look at the disk found out about an object.
type diskEvent struct {
	key             objectKey
	reason, message string
	stop            bool // the object must be stopped
}

// reserve is what must stay free for all.
func reserve(size int64) int64 { return min(max(size/20, 64<<20), 2<<30) }

// look measures every folder and returns what has changed.
func (d *disks) look() ([]diskEvent, error) {
	free, size, err := d.disk.Free()
	if err != nil {
		return nil, err
	}
	return d.judge(free, size), nil
}

// judge is look on a disk of so many bytes, so many of them free.
func (d *disks) judge(free, size int64) []diskEvent {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.short
	short := free < reserve(size)/4*5 // it is what is left when one may not grow
	d.short = short || was && free < 2*reserve(size)
	var events []diskEvent
	for _, dir := range slices.Sorted(maps.Keys(d.folders)) {
		if e, ok := d.lookAt(d.folders[dir]); ok {
			events = append(events, e)
		}
	}
	switch {
	case short:
		events = append(events, d.holdOne(free, size)...)
	case was && !d.short:
		events = append(events, d.letGo()...)
	}
	for _, s := range d.folders {
		if s.held == "" {
			_ = d.boundByRoom(s, free, size) // it may be gone; the next look tells
		}
	}
	return events
}

// lookAt compares one folder with its limit.
func (d *disks) lookAt(s *storage) (diskEvent, bool) {
	used, err := d.disk.Used(s.dir)
	if err != nil {
		return diskEvent{}, false // gone meanwhile
	}
	s.used = used
	if !d.short {
		s.calm = used
	}
	const nearly = 64 << 10 // no write of a few blocks fits
	full := s.limit > 0 && used > s.limit-nearly
	if full == s.full || (s.full && used > s.limit/10*9) { // a little room comes and goes
		return diskEvent{}, false
	}
	s.full = full
	if !full {
		if !d.short {
			s.held = ""
		}
		return diskEvent{s.key, reasonDiskSpace, "its " + s.name + " has room again", false}, true
	}
	e := diskEvent{s.key, reasonDiskFull, s.problem(), false}
	if !d.disk.Limited() && used > s.limit {
		s.held = s.problem()
		e.stop = true
	}
	return e, true
}

// holdOne holds back whoever has grown most since the disk began to be short.
// Where that was not the cause, the next look finds the next. What is left is
// for those that write little.
func (d *disks) holdOne(free, size int64) []diskEvent {
	var worst *storage
	least := reserve(size) / 16
	for _, s := range d.folders {
		if s.held == "" && s.used-s.calm >= least && (worst == nil || s.used-s.calm > worst.used-worst.calm) {
			worst = s
		}
	}
	if worst == nil {
		return nil
	}
	worst.held = fmt.Sprintf("the data partition is nearly full (%s free), and its %s grew to %s: it may not grow until there is room", humanize.IBytes(uint64(free)), worst.name, humanize.IBytes(uint64(worst.used)))
	if err := d.bound(worst, worst.used); err != nil {
		worst.held += ": " + err.Error()
	}
	return []diskEvent{{worst.key, reasonDiskFull, worst.held, !d.disk.Limited()}}
}

// letGo lets all grow again up to their limits.
func (d *disks) letGo() []diskEvent {
	var events []diskEvent
	for _, s := range d.folders {
		if s.held == "" {
			continue
		}
		s.held, s.bound = "", 0
		e := diskEvent{s.key, reasonDiskSpace, "the data partition has room again: its " + s.name + " may grow", false}
		if err := d.bound(s, s.limit); err != nil {
			e.message += ": " + err.Error()
		}
		events = append(events, e)
	}
	return events
}

// watchDisk looks at the data partition until ctx ends.
func (n *Node) watchDisk(ctx context.Context) {
	interval := diskInterval
	if !n.disks.disk.Limited() {
		interval = countInterval
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		events, err := n.disks.look()
		if err != nil {
			n.log.Warn("the disk is not watched", "error", err)
			continue
		}
		for _, e := range events {
			n.log.Warn("disk", "object", e.key.String(), "reason", e.reason, "message", e.message)
			n.note(e.key, e.reason, e.message)
			n.changes.publish(e.key)
			if e.stop {
				n.displace(map[string]error{e.key.id(): errors.New(e.message)})
			}
		}
	}
}

// volume is where a volume lies.
func (n *Node) volume(name string) string { return filepath.Join(n.config.StateDir, "volumes", name) }

// claimVolumes makes what volumes are not there yet, and bounds all.
func (w *workload) claimVolumes(obj *manifest.Workload) error {
	for _, v := range obj.Spec.Volumes {
		if v.ReadOnly {
			continue
		}
		dir := w.n.volume(v.Name)
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return fmt.Errorf("make volume %s: %w", v.Name, err)
		}
		limit, _ := v.Size.Value() // checked with the manifest
		if err := w.n.disks.claim(w.key, "volume "+v.Name, dir, limit); err != nil {
			return err
		}
	}
	return nil
}

// claimLayer bounds the writable layer over the image.
func (w *workload) claimLayer(ctx context.Context, obj *manifest.Workload) error {
	dir, err := w.n.runtime.Layer(ctx, w.key.id())
	if err != nil {
		return err
	}
	limit, _ := obj.Spec.Resources.EphemeralStorage.Value() // checked with the manifest
	return w.n.disks.claim(w.key, "writable layer", dir, limit)
}
