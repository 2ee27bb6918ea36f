package layout

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode/utf16"
)

// FAT reads a FAT32 file system (Microsoft FAT specification 1.03). It
// trusts nothing: every chain and every size is bounded.
type FAT struct {
	r         io.ReaderAt
	size      int64  // of the partition, bytes
	fat, data int64  // where the table and the clusters begin, bytes
	cluster   int64  // bytes
	clusters  uint32 // highest cluster number + 1
	root      uint32
}

// Entry is one file or folder.
type Entry struct {
	Name string
	Dir  bool
	Size int64 // bytes, of a file

	cluster uint32
}

const maxFATFolder = 4 << 20 // bytes of entries in one folder

// OpenFAT reads the head of a file system of size bytes.
func OpenFAT(r io.ReaderAt, size int64) (*FAT, error) {
	boot := make([]byte, SectorSize)
	if _, err := r.ReadAt(boot, 0); err != nil {
		return nil, fmt.Errorf("read its first sector: %w", err)
	}
	u16 := func(at int) int64 { return int64(binary.LittleEndian.Uint16(boot[at:])) }
	u32 := func(at int) int64 { return int64(binary.LittleEndian.Uint32(boot[at:])) }
	perCluster, copies, tableSize := int64(boot[13]), int64(boot[16]), u32(36)
	f := &FAT{r: r, size: size, fat: u16(14) * SectorSize, cluster: perCluster * SectorSize, root: binary.LittleEndian.Uint32(boot[44:])}
	f.data = f.fat + copies*tableSize*SectorSize
	if u16(510) != 0xaa55 || u16(11) != SectorSize || perCluster == 0 || perCluster&(perCluster-1) != 0 ||
		copies == 0 || copies > 2 || tableSize == 0 || f.data >= size {
		return nil, errors.New("it is not FAT32 with sectors of 512 bytes")
	}
	f.clusters = uint32(min((size-f.data)/f.cluster, tableSize*SectorSize/4-2)) + 2
	if f.root < 2 || f.root >= f.clusters {
		return nil, errors.New("its root folder is out of bounds")
	}
	return f, nil
}

// chain reads a chain of clusters of at most limit bytes.
func (f *FAT) chain(first uint32, limit int64) ([]byte, error) {
	var out []byte
	next := make([]byte, 4)
	for at := first; ; {
		if at < 2 || at >= f.clusters {
			return nil, fmt.Errorf("cluster %d is out of bounds", at)
		}
		if int64(len(out))+f.cluster > AlignUp(limit, f.cluster) {
			return nil, errors.New("it is larger than it may be, or runs in a circle")
		}
		block := make([]byte, f.cluster)
		if _, err := f.r.ReadAt(block, f.data+int64(at-2)*f.cluster); err != nil {
			return nil, err
		}
		out = append(out, block...)
		if _, err := f.r.ReadAt(next, f.fat+int64(at)*4); err != nil {
			return nil, err
		}
		at = binary.LittleEndian.Uint32(next) & 0x0fffffff
		if at >= 0x0ffffff8 {
			return out, nil
		}
	}
}

// folder lists the entries of the folder that begins at a cluster.
func (f *FAT) folder(first uint32) ([]Entry, error) {
	data, err := f.chain(first, maxFATFolder)
	if err != nil {
		return nil, err
	}
	var out []Entry
	var long []uint16
	for ; len(data) >= 32 && data[0] != 0; data = data[32:] {
		e, attributes := data[:32], data[11]
		switch {
		case e[0] == 0xe5: // deleted
			long = nil
		case attributes == 0x0f: // a part of the long name of the next entry
			long = append(longPart(e), long...)
		case attributes&0x08 != 0: // volume label
			long = nil
		default:
			entry := Entry{
				Name: shortName(e), Dir: attributes&0x10 != 0, Size: int64(binary.LittleEndian.Uint32(e[28:])),
				cluster: uint32(binary.LittleEndian.Uint16(e[20:]))<<16 | uint32(binary.LittleEndian.Uint16(e[26:])),
			}
			if len(long) > 0 {
				entry.Name = string(utf16.Decode(long))
			}
			long = nil
			if entry.Name != "." && entry.Name != ".." {
				out = append(out, entry)
			}
		}
	}
	return out, nil
}

// longPart is the piece of a long name that an entry holds (§7).
func longPart(e []byte) []uint16 {
	var part []uint16
	for _, span := range [][2]int{{1, 11}, {14, 26}, {28, 32}} {
		for at := span[0]; at < span[1]; at += 2 {
			c := binary.LittleEndian.Uint16(e[at:])
			if c == 0 || c == 0xffff {
				return part
			}
			part = append(part, c)
		}
	}
	return part
}

// shortName is an 8.3 name, in the case that the entry's flags tell.
func shortName(e []byte) string {
	base, extension := strings.TrimRight(string(e[:8]), " "), strings.TrimRight(string(e[8:11]), " ")
	if e[12]&0x08 != 0 {
		base = strings.ToLower(base)
	}
	if e[12]&0x10 != 0 {
		extension = strings.ToLower(extension)
	}
	if extension == "" {
		return base
	}
	return base + "." + extension
}

// find walks a path with slashes; names are compared as FAT does, without
// regard to case.
func (f *FAT) find(name string) (Entry, error) {
	at := Entry{Name: "/", Dir: true, cluster: f.root}
	for part := range strings.SplitSeq(strings.Trim(name, "/"), "/") {
		if part == "" {
			continue
		}
		if !at.Dir {
			return at, fs.ErrNotExist
		}
		entries, err := f.folder(at.cluster)
		if err != nil {
			return at, fmt.Errorf("folder %s: %w", at.Name, err)
		}
		found := false
		for _, e := range entries {
			if found = strings.EqualFold(e.Name, part); found {
				at = e
				break
			}
		}
		if !found {
			return at, fs.ErrNotExist
		}
	}
	return at, nil
}

// ReadDir lists a folder.
func (f *FAT) ReadDir(name string) ([]Entry, error) {
	e, err := f.find(name)
	if err == nil && !e.Dir {
		err = errors.New("it is not a folder")
	}
	if err != nil {
		return nil, err
	}
	return f.folder(e.cluster)
}

// ReadFile reads a file of at most limit bytes.
func (f *FAT) ReadFile(name string, limit int64) ([]byte, error) {
	e, err := f.find(name)
	if err == nil && e.Dir {
		err = errors.New("it is a folder")
	}
	if err == nil && (e.Size > limit || e.Size > f.size) {
		err = fmt.Errorf("its size of %d bytes is out of bounds", e.Size)
	}
	if err != nil || e.Size == 0 {
		return nil, err
	}
	data, err := f.chain(e.cluster, e.Size)
	if err == nil && int64(len(data)) < e.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	return data[:e.Size], nil
}
