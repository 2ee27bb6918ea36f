package disk

import (
	"fmt"
	"maps"
	"slices"

	"oscine.dev/oscine/internal/printable"
)

// Event is what a look at the disk found out about an owner.
type Event[Owner comparable] struct {
	Owner   Owner
	Reason  string // DiskFull or DiskSpace
	Message string
	Stop    bool // the owner must be stopped
}

// reserve is what must stay free for all.
func reserve(size Amount) Amount {
	r := Amount{Bytes: min(max(size.Bytes/20, 64<<20), 2<<30)}
	if size.Inodes > 0 {
		r.Inodes = min(max(size.Inodes/20, 1<<10), 64<<10)
	}
	return r
}

// shortOf reports whether there is little more left than so much, of bytes or of
// inodes.
func shortOf(now Space, keep Amount) bool {
	return now.Free.Bytes < keep.Bytes/4*5 || now.counted() && now.Free.Inodes < keep.Inodes/4*5
}

// left says what is left.
func left(now Space) string {
	if !now.counted() {
		return printable.Bytes(now.Free.Bytes) + " free"
	}
	return fmt.Sprintf("%s and %d files free", printable.Bytes(now.Free.Bytes), now.Free.Inodes)
}

// Look measures every folder and returns what has changed.
func (d *Disk[Owner]) Look() ([]Event[Owner], error) {
	now, err := d.fs.space()
	if err != nil {
		return nil, err
	}
	return d.judge(now), nil
}

// judge is Look on a disk with so much space.
func (d *Disk[Owner]) judge(now Space) []Event[Owner] {
	used := d.measure()
	d.mu.Lock()
	defer d.mu.Unlock()
	was, keep := d.short, reserve(now.Size)
	short := shortOf(now, keep) // it is what is left when one may not grow
	d.short = short || was && shortOf(now, Amount{keep.Bytes / 5 * 8, keep.Inodes / 5 * 8})
	var events []Event[Owner]
	for _, dir := range slices.Sorted(maps.Keys(d.folders)) {
		if e, ok := d.lookAt(d.folders[dir], used); ok {
			events = append(events, e)
		}
	}
	switch {
	case short:
		events = append(events, d.holdOne(now)...)
	case was && !d.short:
		events = append(events, d.letGo()...)
	}
	for _, s := range d.folders {
		_ = d.boundByRoom(s, now) // it may be gone; the next look tells
	}
	return events
}

// measure is what each folder holds. Where the kernel does not count, that means
// reading them all, so no lock is held meanwhile: nobody waits for it.
func (d *Disk[Owner]) measure() map[string]Amount {
	d.mu.Lock()
	dirs := slices.Collect(maps.Keys(d.folders))
	d.mu.Unlock()
	used := map[string]Amount{}
	for _, dir := range dirs {
		if amount, err := d.fs.used(dir); err == nil {
			used[dir] = amount
		}
	}
	return used
}

// lookAt compares one folder with its limit.
func (d *Disk[Owner]) lookAt(s *folder[Owner], measured map[string]Amount) (Event[Owner], bool) {
	used, known := measured[s.dir]
	if !known {
		return Event[Owner]{}, false // gone, or claimed meanwhile
	}
	s.used = used
	if !d.short {
		s.calm = used
	}
	const nearly = 64 << 10 // no write of a few blocks fits
	full := s.limit.Bytes > 0 && used.Bytes > s.limit.Bytes-nearly || s.fullOfFiles()
	roomy := used.Bytes <= s.limit.Bytes/10*9 && used.Inodes <= s.limit.Inodes/10*9
	if full == s.full || (s.full && !roomy) { // a little room comes and goes
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
	if !d.fs.enforces() && (used.Bytes > s.limit.Bytes || used.Inodes > s.limit.Inodes) {
		s.held = s.problem()
		e.Stop = true
	}
	return e, true
}

// holdOne holds back the folder that has grown most, in bytes or in inodes, since the
// disk began to be short of these. Where that was not the cause, the next look
// finds the next. What is left is for those that write little.
func (d *Disk[Owner]) holdOne(now Space) []Event[Owner] {
	keep := reserve(now.Size)
	grown, least := func(s *folder[Owner]) int64 { return s.used.Bytes - s.calm.Bytes }, keep.Bytes/16
	what := func(s *folder[Owner]) string { return printable.Bytes(s.used.Bytes) }
	if now.Free.Bytes >= keep.Bytes/4*5 {
		grown, least = func(s *folder[Owner]) int64 { return s.used.Inodes - s.calm.Inodes }, keep.Inodes/16
		what = func(s *folder[Owner]) string { return fmt.Sprintf("%d files", s.used.Inodes) }
	}
	var worst *folder[Owner]
	for _, s := range d.folders {
		if s.held == "" && grown(s) >= least && (worst == nil || grown(s) > grown(worst)) {
			worst = s
		}
	}
	if worst == nil {
		return nil
	}
	worst.held = fmt.Sprintf("the data partition is nearly full (%s), and its %s grew to %s: it may not grow until there is room", left(now), worst.name, what(worst))
	worst.bound = Amount{max(worst.used.Bytes, 1), max(worst.used.Inodes, 1)}
	if err := d.bound(worst, worst.bound); err != nil {
		worst.held += ": " + err.Error()
	}
	return []Event[Owner]{{worst.owner, reasonFull, worst.held, !d.fs.enforces()}}
}

// letGo lets all grow again up to their limits.
func (d *Disk[Owner]) letGo() []Event[Owner] {
	var events []Event[Owner]
	for _, s := range d.folders {
		if s.held == "" {
			continue
		}
		s.held = ""
		events = append(events, Event[Owner]{s.owner, reasonSpace, "the data partition has room again: its " + s.name + " may grow", false})
	}
	return events
}
