package disk

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/printable"
)

// Reasons of events.
const (
	reasonFull  = "DiskFull"
	reasonSpace = "DiskSpace"
)

// Holding is what an owner holds in one folder.
type Holding struct {
	Name      string `json:"name"` // volume NAME, or writable layer
	Used      int64  `json:"used"` // bytes
	Limit     int64  `json:"limit,omitempty"`
	Files     int64  `json:"files,omitempty"` // and folders
	FileLimit int64  `json:"fileLimit,omitempty"`
	Problem   string `json:"problem,omitempty"`
}

// folder is one folder of an owner's.
type folder[Owner comparable] struct {
	owner Owner
	name  string
	dir   string
	limit Amount // of the manifest; 0 for none
	used  Amount
	calm  Amount // used when the disk was last not short
	full  bool   // its limit is reached
	// bound is the kernel's limit: that of the manifest, or what is left but the
	// reserve, so that none can take that between two looks.
	bound Amount
	// held says why it may not grow while the disk is short: the kernel refuses
	// it or, where it cannot, the owner is stopped.
	held string
}

// Disk watches what owners hold on one file system, so that one that fills it
// is named and held back while all others go on. A reserve of bytes and inodes is
// left to the system. It is safe for concurrent use.
type Disk[Owner comparable] struct {
	fs system

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
	if d.fs.enforces() {
		return 2 * time.Second
	}
	return 10 * time.Second
}

// A folder with a limit may hold as many files as it has room for ones of a
// block, and some more so that a small one can hold empty ones.
const (
	bytesPerFile = 4 << 10
	leastFiles   = 1 << 10
)

// limitOf is the limit of a folder that may hold so many bytes, 0 for as much as
// there is.
func limitOf(bytes int64) Amount {
	if bytes <= 0 {
		return Amount{}
	}
	return Amount{bytes, max(bytes/bytesPerFile, leastFiles)}
}

// Claim counts a folder as an owner's and bounds it to so many bytes, 0 for as
// much as there is, and to as many files as these have room for. What the owner
// claimed by that name before no longer counts. Nobody may write below dir
// meanwhile, unless it was claimed before.
func (d *Disk[Owner]) Claim(owner Owner, name, dir string, limit int64) error {
	if err := d.fs.claim(dir); err != nil {
		return fmt.Errorf("count what %s holds: %w", name, err)
	}
	now, err := d.fs.space()
	if err != nil {
		return err
	}
	used, _ := d.fs.used(dir) // without the lock, for it may have to be read; looked at again soon
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
		s.used, s.calm = used, used
	}
	s.owner, s.name, s.limit = owner, name, limitOf(limit)
	if s.held == "" {
		s.bound = Amount{}
	}
	for _, other := range d.folders {
		if err := d.boundByRoom(other, now); err != nil && other == s {
			return err
		}
	}
	return nil
}

// boundByRoom lets a folder grow up to its limit, and not into the reserve.
// Root may use the last bytes of ext4 in any case; of inodes the kernel keeps
// none for it, so all folders together may take only what there is but the
// reserve, even if each grows as fast as it can until the next look.
func (d *Disk[Owner]) boundByRoom(s *folder[Owner], now Space) error {
	if s.held != "" {
		return nil
	}
	keep := reserve(now.Size)
	want := Amount{Bytes: max(s.used.Bytes+now.Free.Bytes-keep.Bytes, s.used.Bytes, 1<<20)}
	if now.counted() {
		want.Inodes = s.used.Inodes + max(now.Free.Inodes-keep.Inodes, 0)/int64(len(d.folders))
		want.Inodes = max(want.Inodes, 1)
	}
	if s.limit.Bytes > 0 {
		want.Bytes = min(want.Bytes, s.limit.Bytes)
	}
	if s.limit.Inodes > 0 && (want.Inodes == 0 || s.limit.Inodes < want.Inodes) {
		want.Inodes = s.limit.Inodes
	}
	if want.Inodes >= s.bound.Inodes && near(s.bound.Bytes, want.Bytes, s.used.Bytes) && near(s.bound.Inodes, want.Inodes, s.used.Inodes) {
		return nil
	}
	s.bound = want
	return d.bound(s, want)
}

// near reports whether a bound is about what is wanted, seen from what is used.
func near(have, want, used int64) bool {
	return have == want || have > 0 && max(have-want, want-have) <= max(want-used, 0)/8
}

func (d *Disk[Owner]) bound(s *folder[Owner], limit Amount) error {
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
			_ = d.bound(s, Amount{}) // it may be gone with its layer
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
			list = append(list, Holding{s.name, s.used.Bytes, s.limit.Bytes, s.used.Inodes, s.limit.Inodes, s.problem()})
		}
	}
	slices.SortFunc(list, func(a, b Holding) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func (s *folder[Owner]) problem() string {
	switch {
	case s.held != "":
		return s.held
	case !s.full:
		return ""
	case s.fullOfFiles():
		return fmt.Sprintf("its %s is full: %d of %d files; delete what it does not need, or raise the limit in its manifest", s.name, s.used.Inodes, s.limit.Inodes)
	}
	return fmt.Sprintf("its %s is full: %s of %s; delete what it does not need, or raise the limit in its manifest", s.name, printable.Bytes(s.used.Bytes), printable.Bytes(s.limit.Bytes))
}

func (s *folder[Owner]) fullOfFiles() bool {
	return s.limit.Inodes > 0 && s.used.Inodes >= s.limit.Inodes
}

// Admit refuses to start what filled the disk while it is short, and was
// stopped because the kernel cannot hold it.
func (d *Disk[Owner]) Admit(owner Owner) error {
	if d.fs.enforces() {
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

// ErrFull is Room's refusal.
var ErrFull = errdefs.ErrResourceExhausted.WithMessage("the data partition is nearly full")

// Room refuses with ErrFull what would fill the disk further. A caller that stores much asks again
// and again.
func (d *Disk[Owner]) Room() error {
	now, err := d.fs.space()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.short && !shortOf(now, reserve(now.Size)) {
		return nil
	}
	return fmt.Errorf("%w (%s): oscine volume list, oscine image list, oscine model list and oscine pack list show what is stored there, and their remove commands free space", ErrFull, left(now))
}

// Space tells how large the disk is and what is left of it.
func (d *Disk[Owner]) Space() (Space, error) { return d.fs.space() }

// Used measures a folder, claimed or not.
func (d *Disk[Owner]) Used(dir string) (Amount, error) {
	used, err := d.fs.used(dir)
	if err == nil && used == (Amount{}) { // the kernel has not counted it yet
		return measure(dir)
	}
	return used, err
}
