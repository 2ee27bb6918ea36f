package image

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// BlockSize is the size in bytes of the blocks that dm-verity hashes, and of
// the blocks of the hash tree.
const BlockSize = 4096

// Verity tells how to open a root with dm-verity: hash type 1, SHA-256, blocks
// of 4096 bytes, no superblock, the tree right behind the data
// (Documentation/admin-guide/device-mapper/verity.rst).
type Verity struct {
	RootHash [sha256.Size]byte
	Salt     [sha256.Size]byte
	Blocks   uint64 // of data; the tree begins at this block
}

// String is the value of the kernel parameter oscine.verity.
func (v Verity) String() string {
	return hex.EncodeToString(v.RootHash[:]) + "," + hex.EncodeToString(v.Salt[:]) + "," + strconv.FormatUint(v.Blocks, 10)
}

// ParseVerity reads what [Verity.String] writes.
func ParseVerity(s string) (Verity, error) {
	var v Verity
	f := strings.Split(s, ",")
	if len(f) != 3 {
		return v, fmt.Errorf("oscine.verity=%q: not roothash,salt,blocks", s)
	}
	for i, into := range [][]byte{v.RootHash[:], v.Salt[:]} {
		b, err := hex.DecodeString(f[i])
		if err != nil || len(b) != sha256.Size {
			return v, fmt.Errorf("oscine.verity=%q: field %d is not 32 bytes in hexadecimal", s, i+1)
		}
		copy(into, b)
	}
	var err error
	if v.Blocks, err = strconv.ParseUint(f[2], 10, 40); err != nil || v.Blocks == 0 {
		return v, fmt.Errorf("oscine.verity=%q: %q is not a number of blocks", s, f[2])
	}
	return v, nil
}

// hashTree reads data, whose size must be a multiple of [BlockSize], and
// returns the hash tree, its root level first as the kernel expects it.
func hashTree(data io.Reader, salt [sha256.Size]byte) (tree []byte, v Verity, err error) {
	v.Salt = salt
	level, block := []byte(nil), make([]byte, BlockSize)
	for {
		_, err := io.ReadFull(data, block)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, v, fmt.Errorf("hash the root after block %d: %w", v.Blocks, err)
		}
		level = append(level, saltedHash(salt, block)...)
		v.Blocks++
	}
	if v.Blocks == 0 {
		return nil, v, errors.New("hash the root: it is empty")
	}
	var levels [][]byte
	for {
		level = pad(level)
		levels = append(levels, level)
		if len(level) == BlockSize {
			break
		}
		var above []byte
		for i := 0; i < len(level); i += BlockSize {
			above = append(above, saltedHash(salt, level[i:i+BlockSize])...)
		}
		level = above
	}
	copy(v.RootHash[:], saltedHash(salt, level))
	for i := len(levels) - 1; i >= 0; i-- {
		tree = append(tree, levels[i]...)
	}
	return tree, v, nil
}

func saltedHash(salt [sha256.Size]byte, block []byte) []byte {
	h := sha256.New()
	h.Write(salt[:])
	h.Write(block)
	return h.Sum(nil)
}

func pad(b []byte) []byte {
	return append(b, make([]byte, -len(b)&(BlockSize-1))...)
}
