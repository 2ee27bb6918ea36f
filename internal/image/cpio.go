package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
)

// cpioWriter writes the "newc" format that the kernel unpacks as initramfs
// (Documentation/driver-api/early-userspace/buffer-format.rst), with fixed
// owners and times and inode numbers in order.
type cpioWriter struct {
	w     io.Writer
	count uint32
	err   error
}

const (
	cpioMagic   = "070701"
	cpioTrailer = "TRAILER!!!"
	cpioHeader  = 110
)

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

func (c *cpioWriter) add(name string, mode fs.FileMode, data []byte) {
	c.count++
	c.record(name, c.count, unixMode(mode), data)
}

func (c *cpioWriter) record(name string, inode, mode uint32, data []byte) {
	links := uint32(1)
	if mode&0o170000 == 0o040000 {
		links = 2
	}
	c.print("%s%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00", cpioMagic, inode, mode, 0, 0, links,
		uint32(Epoch), len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	c.align(cpioHeader + len(name) + 1)
	if c.err == nil {
		_, c.err = c.w.Write(data)
	}
	c.align(len(data))
}

func (c *cpioWriter) print(format string, args ...any) {
	if c.err == nil {
		_, c.err = fmt.Fprintf(c.w, format, args...)
	}
}

func (c *cpioWriter) align(n int) {
	if c.err == nil {
		_, c.err = c.w.Write(make([]byte, -n&3))
	}
}

func (c *cpioWriter) close() error {
	c.record(cpioTrailer, 0, 0, nil)
	return c.err
}

// Entry is one file of an initramfs or a root, as [Image] lists them.
type Entry struct {
	Path string      `json:"path"` // without a leading slash
	Mode fs.FileMode `json:"mode"`
	Size int64       `json:"size"`           // bytes
	Link string      `json:"link,omitempty"` // target of a symbolic link
	Data []byte      `json:"-"`
}

// Bounds on what a cpio archive may claim.
const (
	maxCPIOEntries = 20_000
	maxCPIOName    = 4096
)

// ReadCPIO lists a newc archive; the data of the entries are parts of archive.
func ReadCPIO(archive []byte) ([]Entry, error) {
	var out []Entry
	for at := 0; ; {
		if len(archive)-at < cpioHeader {
			return nil, errors.New("the cpio archive is cut off")
		}
		head := archive[at : at+cpioHeader]
		if !bytes.HasPrefix(head, []byte(cpioMagic)) {
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
		start := at + (cpioHeader+nameSize+3)&^3
		if nameSize < 1 || nameSize > maxCPIOName || start > len(archive) || size > len(archive)-start || len(out) > maxCPIOEntries {
			return nil, fmt.Errorf("the cpio entry at byte %d is out of bounds", at)
		}
		name := string(archive[at+cpioHeader : at+cpioHeader+nameSize-1])
		if name == cpioTrailer {
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
	case 0o100000:
	default:
		mode |= fs.ModeIrregular
	}
	return mode
}
