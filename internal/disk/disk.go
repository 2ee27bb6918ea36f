package disk

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"oscine.dev/oscine/internal/printable"
)

// Reasons of events.
const (
	reasonFull  = "DiskFull"
	reasonSpace = "DiskSpace"
)

// Holding is what an owner holds in one folder.
type Holding struct {
	Name    string `json:"name"` // volume NAME, or writable layer
	Used    int64  `json:"used"` // bytes
	Limit   int64  `json:"limit,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// folder is one folder of an owner's.
type folder[Owner comparable] struct {
	owner Owner
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
	// it or, where it cannot, the owner is stopped.
	held string
}

// Disk watches what owners hold on one file system, so that one that fills it
// is named and held back while all others go on. What root writes is safe
// besides: ext4 keeps a reserve that only root may use. It is safe for
// concurrent use.
type Disk[Owner comparable] struct {
	fs *fileSystem

	mu      sync.Mutex
	folders map[string]*folder[Owner] // by path
	short   bool
}

// Open looks at the file system that holds root.
func Open[Owner comparable](root string) (*Disk[Owner], error) {
	fs, err := openFileSystem(root)
	if err != nil {
		return nil, err
	}
	return &Disk[Owner]{fs: fs, folders: map[string]*folder[Owner]{}}, nil
}

// Interval is how often to Look. Where the kernel does not count, looking means
// reading every folder, and is done less often.
func (d *Disk[Owner]) Interval() time.Duration {
	if d.fs.limited {
		return 2 * time.Second
	}
	return 10 * time.Second
}

// Claim counts a folder as an owner's and bounds it to so many bytes, 0 for as
// much as there is. What the owner claimed by that name before counts no more.
// Nobody may write below dir meanwhile, unless it was claimed before.
func (d *Disk[Owner]) Claim(owner Owner, name, dir string, limit int64) error {
	if err := d.fs.claim(dir); err != nil {
		return fmt.Errorf("count what %s holds: %w", name, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for other, s := range d.folders {
		if s.owner == owner && s.name == name && other != dir {
			delete(d.folders, other) // the layer of its last run
		}
	}
	s := d.folders[dir]
	if s == nil {
		s = &folder[Owner]{dir: dir}
		d.folders[dir] = s
		s.used, _ = d.fs.used(dir) // looked at again soon
		s.calm = s.used
	}
	s.owner, s.name, s.limit = owner, name, limit
	if s.held != "" {
		return nil
	}
	free, size, err := d.fs.free()
	if err != nil {
		return err
	}
	s.bound = 0
	return d.boundByRoom(s, free, size)
}

// boundByRoom lets a folder grow up to its limit, and not into the reserve.
func (d *Disk[Owner]) boundByRoom(s *folder[Owner], free, size int64) error {
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

func (d *Disk[Owner]) bound(s *folder[Owner], limit int64) error {
	err := d.fs.bound(s.dir, limit)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil // Look finds what passes its limit
	}
	return err
}

// Forget ends the watch over an owner's folders.
func (d *Disk[Owner]) Forget(owner Owner) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for dir, s := range d.folders {
		if s.owner == owner {
			_ = d.bound(s, 0) // it may be gone with its layer
			delete(d.folders, dir)
		}
	}
}

// Held lists what an owner holds.
func (d *Disk[Owner]) Held(owner Owner) []Holding {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []Holding
	for _, s := range d.folders {
		if s.owner == owner {
			list = append(list, Holding{s.name, s.used, s.limit, s.problem()})
		}
	}
	slices.SortFunc(list, func(a, b Holding) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func (s *folder[Owner]) problem() string {
	switch {
	case s.held != "":
		return s.held
	case s.full:
		return fmt.Sprintf("its %s is full: %s of %s; delete what it does not need, or raise the limit in its manifest", s.name, printable.Bytes(s.used), printable.Bytes(s.limit))
	}
	return ""
}

// Admit refuses to start what filled the disk while it is short, and was
// stopped because the kernel cannot hold it.
func (d *Disk[Owner]) Admit(owner Owner) error {
	if d.fs.limited {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.folders {
		if s.owner == owner && s.held != "" {
			return errors.New(s.held)
		}
	}
	return nil
}

// Room refuses what would fill the disk further.
func (d *Disk[Owner]) Room() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.short {
		return errors.New("the data partition is nearly full: oscine describe shows what workloads hold, oscine image list what images do")
	}
	return nil
}

// Event is what a look at the disk found out about an owner.
type Event[Owner comparable] struct {
	Owner   Owner
	Reason  string // DiskFull or DiskSpace
	Message string
	Stop    bool // the owner must be stopped
}

// reserve is what must stay free for all.
func reserve(size int64) int64 { return min(max(size/20, 64<<20), 2<<30) }

// Look measures every folder and returns what has changed.
func (d *Disk[Owner]) Look() ([]Event[Owner], error) {
	free, size, err := d.fs.free()
	if err != nil {
		return nil, err
	}
	return d.judge(free, size), nil
}

// judge is Look on a disk of so many bytes, so many of them free.
func (d *Disk[Owner]) judge(free, size int64) []Event[Owner] {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.short
	short := free < reserve(size)/4*5 // it is what is left when one may not grow
	d.short = short || was && free < 2*reserve(size)
	var events []Event[Owner]
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
func (d *Disk[Owner]) lookAt(s *folder[Owner]) (Event[Owner], bool) {
	used, err := d.fs.used(s.dir)
	if err != nil {
		return Event[Owner]{}, false // gone meanwhile
	}
	s.used = used
	if !d.short {
		s.calm = used
	}
	const nearly = 64 << 10 // no write of a few blocks fits
	full := s.limit > 0 && used > s.limit-nearly
	if full == s.full || (s.full && used > s.limit/10*9) { // a little room comes and goes
		return Event[Owner]{}, false
	}
	s.full = full
	if !full {
		if !d.short {
			s.held = ""
		}
		return Event[Owner]{s.owner, reasonSpace, "its " + s.name + " has room again", false}, true
	}
	e := Event[Owner]{s.owner, reasonFull, s.problem(), false}
	if !d.fs.limited && used > s.limit {
		s.held = s.problem()
		e.Stop = true
	}
	return e, true
}

// holdOne holds back whoever has grown most since the disk began to be short.
// Where that was not the cause, the next look finds the next. What is left is
// for those that write little.
func (d *Disk[Owner]) holdOne(free, size int64) []Event[Owner] {
	var worst *folder[Owner]
	least := reserve(size) / 16
	for _, s := range d.folders {
		if s.held == "" && s.used-s.calm >= least && (worst == nil || s.used-s.calm > worst.used-worst.calm) {
			worst = s
		}
	}
	if worst == nil {
		return nil
	}
	worst.held = fmt.Sprintf("the data partition is nearly full (%s free), and its %s grew to %s: it may not grow until there is room", printable.Bytes(free), worst.name, printable.Bytes(worst.used))
	if err := d.bound(worst, worst.used); err != nil {
		worst.held += ": " + err.Error()
	}
	return []Event[Owner]{{worst.owner, reasonFull, worst.held, !d.fs.limited}}
}

// letGo lets all grow again up to their limits.
func (d *Disk[Owner]) letGo() []Event[Owner] {
	var events []Event[Owner]
	for _, s := range d.folders {
		if s.held == "" {
			continue
		}
		s.held, s.bound = "", 0
		e := Event[Owner]{s.owner, reasonSpace, "the data partition has room again: its " + s.name + " may grow", false}
		if err := d.bound(s, s.limit); err != nil {
			e.Message += ": " + err.Error()
		}
		events = append(events, e)
	}
	return events
}
