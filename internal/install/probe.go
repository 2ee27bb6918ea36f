package install

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"

	"oscine.dev/oscine/internal/printable"
)

// Signature is what the first blocks of a device say that it holds.
type Signature struct {
	Type    string // as blkid(8) names it; empty for nothing that is known
	Label   string
	Member  bool   // it is a part of a volume group, an array or a pool
	Problem string // why it could not be read
}

// magic is one place by which a format is known.
type magic struct {
	kind   string
	at     int64 // bytes
	text   string
	label  int64 // where the label is, 0 for none
	length int   // of the label, bytes
	member bool
}

// magics are the formats, the surest first: a file system may follow what is left
// of another. Sources: libblkid of util-linux, each format's own header.
func magics() []magic {
	return []magic{
		{kind: "crypto_LUKS", at: 0, text: "LUKS\xba\xbe", label: 24, length: 48},
		{kind: "linux_raid_member", at: 4096, text: "\xfc\x4e\x2b\xa9", label: 4096 + 32, length: 32, member: true}, // 1.2
		{kind: "linux_raid_member", at: 0, text: "\xfc\x4e\x2b\xa9", label: 32, length: 32, member: true},           // 1.1
		{kind: "LVM2_member", at: 512 + 24, text: "LVM2 001", member: true},
		{kind: "LVM2_member", at: 24, text: "LVM2 001", member: true},
		{kind: "bcache", at: 4096 + 24, text: "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", member: true},
		{kind: "ceph_bluestore", at: 0, text: "bluestore block device", member: true},
		{kind: "xfs", at: 0, text: "XFSB", label: 108, length: 12},
		{kind: "btrfs", at: 65536 + 64, text: "_BHRfS_M", label: 65536 + 0x12b, length: 256},
		{kind: "ext", at: 1024 + 56, text: "\x53\xef", label: 1024 + 120, length: 16},
		{kind: "erofs", at: 1024, text: "\xe2\xe1\xf5\xe0", label: 1024 + 64, length: 16},
		{kind: "squashfs", at: 0, text: "hsqs"},
		{kind: "f2fs", at: 1024, text: "\x10\x20\xf5\xf2"},
		{kind: "ntfs", at: 3, text: "NTFS    "},
		{kind: "exfat", at: 3, text: "EXFAT   "},
		{kind: "BitLocker", at: 3, text: "-FVE-FS-"},
		{kind: "vfat", at: 82, text: "FAT32   ", label: 71, length: 11},
		{kind: "vfat", at: 54, text: "FAT1", label: 43, length: 11},
		{kind: "swap", at: 4086, text: "SWAPSPACE2", label: 1052, length: 16},
		{kind: "iso9660", at: 32769, text: "CD001", label: 32808, length: 32},
	}
}

// probed is how much of a device is read at its beginning: the uberblocks of ZFS
// are the last of what is looked for.
const probed = 256 << 10

// probe tells what a device of size bytes holds.
func probe(r io.ReaderAt, size int64) Signature {
	head := make([]byte, min(probed, max(size, 0)))
	n, err := r.ReadAt(head, 0)
	if err != nil && n < len(head) {
		return Signature{Problem: err.Error()}
	}
	if isZFS(head) {
		return Signature{Type: "zfs_member", Member: true}
	}
	if found, err := oldRAID(r, size); err != nil {
		return Signature{Problem: err.Error()}
	} else if found {
		return Signature{Type: "linux_raid_member", Member: true}
	}
	for _, m := range magics() {
		if !has(head, m.at, m.text) {
			continue
		}
		s := Signature{Type: m.kind, Member: m.member}
		if m.length > 0 && m.label+int64(m.length) <= int64(len(head)) {
			s.Label = label(head[m.label:][:m.length])
		}
		if m.kind == "ext" {
			s.Type = extKind(head)
		}
		if s.Type == "vfat" && s.Label == "NO NAME" {
			s.Label = ""
		}
		return s
	}
	return Signature{}
}

func has(head []byte, at int64, text string) bool {
	return at+int64(len(text)) <= int64(len(head)) && string(head[at:at+int64(len(text))]) == text
}

func label(raw []byte) string {
	text, _, _ := bytes.Cut(raw, []byte{0})
	return strings.TrimSpace(printable.Text(strings.ToValidUTF8(string(text), "?")))
}

// extKind tells the three apart by their features (fs/ext4/ext4.h).
func extKind(head []byte) string {
	const journal, extents, bits64 = 0x4, 0x40, 0x80
	compat, incompat := binary.LittleEndian.Uint32(head[1024+92:]), binary.LittleEndian.Uint32(head[1024+96:])
	switch {
	case incompat&(extents|bits64) != 0:
		return "ext4"
	case compat&journal != 0:
		return "ext3"
	}
	return "ext2"
}

// isZFS looks for an uberblock in the first label (ZFS on-disk format, 1.3).
func isZFS(head []byte) bool {
	for at := 128 << 10; at+8 <= len(head); at += 1 << 10 {
		if binary.LittleEndian.Uint64(head[at:]) == 0x00bab10c || binary.BigEndian.Uint64(head[at:]) == 0x00bab10c {
			return true
		}
	}
	return false
}

// oldRAID looks for the superblocks of Linux RAID that lie at the end: versions
// 0.90 and 1.0 (md(4)).
func oldRAID(r io.ReaderAt, size int64) (bool, error) {
	block := make([]byte, 4)
	for _, at := range []int64{size&^(64<<10-1) - 64<<10, (size/512 - 16) &^ 7 * 512} {
		if at <= 0 {
			continue
		}
		if _, err := r.ReadAt(block, at); err != nil {
			return false, err
		}
		if string(block) == "\xfc\x4e\x2b\xa9" {
			return true, nil
		}
	}
	return false, nil
}
