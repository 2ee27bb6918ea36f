package release

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Tries is how often the boot loader tries a new image before it gives up.
const Tries = 3

// suffix ends the file name of every kernel image.
const suffix = ".efi"

// Entry is the file name of a kernel image on the ESP, as the boot loader reads
// it: TITLE.efi, TITLE+LEFT.efi or TITLE+LEFT-DONE.efi, where the title of ours
// is NAME_VERSION, such as oscine_0.1.0+3.efi
// (UAPI Group Specification: Boot Loader, Boot Counting).
type Entry struct {
	Title string // without counter and suffix
	// Counted tells that the name has a boot counter: the image is on trial, or
	// was given up.
	Counted bool
	Left    int // tries left; 0 with Counted set puts the image behind all others
	Done    int // tries made
}

// NewEntry is the entry of an image that was not tried yet.
func NewEntry(name, version string) Entry {
	return Entry{Title: name + "_" + version, Counted: true, Left: Tries}
}

// ParseEntry reads the name of a file without its folder. ok is false for one
// that is not an image of the boot loader's. What looks like a counter and is
// none, such as +a or one beyond 2³¹−1, is part of the title, as it is for
// systemd-boot.
func ParseEntry(file string) (e Entry, ok bool) {
	at := len(file) - len(suffix)
	if at <= 0 || !strings.EqualFold(file[at:], suffix) || strings.ContainsAny(file, "/\\\x00") {
		return Entry{}, false
	}
	e.Title = file[:at]
	plus := strings.LastIndexByte(e.Title, '+')
	if plus <= 0 {
		return e, true
	}
	leftText, doneText, hasDone := strings.Cut(e.Title[plus+1:], "-")
	left, ok1 := parseCount(leftText)
	done, ok2 := 0, true
	if hasDone {
		done, ok2 = parseCount(doneText)
	}
	if ok1 && ok2 {
		e = Entry{Title: e.Title[:plus], Counted: true, Left: left, Done: done}
	}
	return e, true
}

func parseCount(text string) (int, bool) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 64)
	return int(n), err == nil && n <= math.MaxInt32
}

// File is the name of the file.
func (e Entry) File() string {
	switch {
	case !e.Counted:
		return e.Title + suffix
	case e.Done == 0:
		return fmt.Sprintf("%s+%d%s", e.Title, e.Left, suffix)
	}
	return fmt.Sprintf("%s+%d-%d%s", e.Title, e.Left, e.Done, suffix)
}

// Version is what follows the first _ of the title; empty where there is none.
func (e Entry) Version() string {
	_, version, _ := strings.Cut(e.Title, "_")
	return version
}

// Bad reports that no tries are left: the boot loader takes every other image
// before it.
func (e Entry) Bad() bool { return e.Counted && e.Left == 0 }

// Good is the entry of an image that works: without a counter.
func (e Entry) Good() Entry { return Entry{Title: e.Title} }

// Demoted is the entry of an image that failed done times and is taken only
// where there is no other.
func (e Entry) Demoted(done int) Entry {
	return Entry{Title: e.Title, Counted: true, Done: max(done, 1)}
}
