package cpio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
)

const (
	magic      = "070701"
	trailer    = "TRAILER!!!"
	headerSize = 110
)

// Writer writes an archive whose bytes depend on what is added and nothing
// else: owners are root, inode numbers count up. The first error stays and is
// what Close returns.
//
// Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
type Writer struct {
	w     io.Writer
	time  uint32
	count uint32
	err   error
}

// NewWriter returns a writer that gives each entry the time of modification at,
// in seconds since 1970.
func NewWriter(w io.Writer, at uint32) *Writer { return &Writer{w: w, time: at} }

// Add adds a folder, a file, or a symbolic link whose target is data; name has
// no leading slash. Folders come before what lies in them.
func (c *Writer) Add(name string, mode fs.FileMode, data []byte) {
	c.count++
	c.record(name, c.count, unixMode(mode), 0, 0, data)
}

// AddCharDevice adds a character device.
func (c *Writer) AddCharDevice(name string, mode fs.FileMode, major, minor uint32) {
	c.count++
	c.record(name, c.count, 0o020000|uint32(mode.Perm()), major, minor, nil)
}

// Close writes the end of the archive. It does not close the underlying writer.
func (c *Writer) Close() error {
	c.record(trailer, 0, 0, 0, 0, nil)
	return c.err
}

func unixMode(mode fs.FileMode) uint32 {
	m := uint32(mode.Perm())
	switch {
	case mode.IsDir():
		m |= 0o040000
	case mode&fs.ModeSymlink != 0:
		m |= 0o120000
	default:
		m |= 0o100000
	}
	return m
}

func (c *Writer) record(name string, inode, mode, major, minor uint32, data []byte) {
	links := uint32(1)
	if mode&0o170000 == 0o040000 {
		links = 2
	}
	c.print("%s%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00", magic, inode, mode, 0, 0, links,
		c.time, len(data), 0, 0, major, minor, len(name)+1, 0, name)
	c.align(headerSize + len(name) + 1)
	if c.err == nil {
		_, c.err = c.w.Write(data)
	}
	c.align(len(data))
}

func (c *Writer) print(format string, args ...any) {
	if c.err == nil {
		_, c.err = fmt.Fprintf(c.w, format, args...)
	}
}

func (c *Writer) align(n int) {
	if c.err == nil {
		_, c.err = c.w.Write(make([]byte, -n&3))
	}
}

// Entry is one file of an archive.
type Entry struct {
	Path string      `json:"path"` // without a leading slash
	Mode fs.FileMode `json:"mode"`
	Size int64       `json:"size"`           // bytes
	Link string      `json:"link,omitempty"` // target of a symbolic link
	Data []byte      `json:"-"`
}

// Bounds on what an archive may claim.
const (
	maxEntries = 20_000
	maxName    = 4096
)

// Read lists an archive; the data of the entries are parts of archive.
func Read(archive []byte) ([]Entry, error) {
	var out []Entry
	for at := 0; ; {
		if len(archive)-at < headerSize {
			return nil, errors.New("the cpio archive is cut off")
		}
		head := archive[at : at+headerSize]
		if !bytes.HasPrefix(head, []byte(magic)) {
			return nil, fmt.Errorf("no cpio header at byte %d", at)
		}
		var f [13]uint64
		for i := range f {
			n, err := strconv.ParseUint(string(head[6+8*i:14+8*i]), 16, 32)
			if err != nil {
				return nil, fmt.Errorf("broken cpio header at byte %d", at)
			}
			f[i] = n
		}
		size, nameSize := int(f[6]), int(f[11])
		start := at + (headerSize+nameSize+3)&^3
		if nameSize < 1 || nameSize > maxName || start > len(archive) || size > len(archive)-start || len(out) > maxEntries {
			return nil, fmt.Errorf("the cpio entry at byte %d is out of bounds", at)
		}
		name := string(archive[at+headerSize : at+headerSize+nameSize-1])
		if name == trailer {
			return out, nil
		}
		e := Entry{Path: name, Mode: fileMode(uint32(f[1])), Size: int64(size), Data: archive[start : start+size]}
		if e.Mode&fs.ModeSymlink != 0 {
			e.Link = string(e.Data)
		}
		out = append(out, e)
		at = start + (size+3)&^3
		if at > len(archive) {
			return nil, errors.New("the cpio archive is cut off")
		}
	}
}

func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & 0o170000 {
	case 0o040000:
		mode |= fs.ModeDir
	case 0o120000:
		mode |= fs.ModeSymlink
	case 0o020000:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case 0o100000:
	default:
		mode |= fs.ModeIrregular
	}
	return mode
}
