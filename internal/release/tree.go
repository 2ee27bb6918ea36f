package release

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// HashTree reads data, whose size must be a multiple of BlockSize, and
// returns the hash tree, its root level first as the kernel expects it.
func HashTree(data io.Reader, salt []byte) (tree []byte, v Verity, err error) {
	v.Salt = salt
	level, block := []byte(nil), make([]byte, BlockSize)
	for {
		_, err := io.ReadFull(data, block)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, v, fmt.Errorf("hash the data after block %d: %w", v.Blocks, err)
		}
		level = append(level, saltedHash(salt, block)...)
		v.Blocks++
	}
	if v.Blocks == 0 {
		return nil, v, errors.New("hash the data: it is empty")
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

func saltedHash(salt []byte, block []byte) []byte {
	h := sha256.New()
	h.Write(salt)
	h.Write(block)
	return h.Sum(nil)
}

func pad(b []byte) []byte {
	return append(b, make([]byte, -len(b)&(BlockSize-1))...)
}

// DataBlocks is how many blocks of data come before a hash tree, given the bytes
// of both together. It returns an error when no number of blocks makes that
// size.
func DataBlocks(size int64) (uint64, error) {
	const perBlock = BlockSize / hashSize
	total := size / BlockSize
	// The tree of n blocks has n/128 blocks and a little more.
	most := total*(perBlock-1)/perBlock + 1
	for n := most; n > 0 && n > most-8; n-- {
		tree := int64(0)
		for level := n; ; {
			level = (level + perBlock - 1) / perBlock
			tree += level
			if level == 1 {
				break
			}
		}
		if n+tree == total && size%BlockSize == 0 {
			return uint64(n), nil
		}
	}
	return 0, fmt.Errorf("%d bytes are no data with its hash tree", size)
}
