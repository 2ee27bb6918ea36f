package boot

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"

	"oscine.dev/oscine/internal/release"
)

// matchRoot hashes the one top block of the tree that follows the data on r and
// returns the tree's first block when it is the root v, and false when r holds
// another root or none. A superblock as veritysetup writes it is skipped.
func matchRoot(v release.Verity, r io.ReaderAt) (hashStart uint64, ok bool, err error) {
	block := make([]byte, release.BlockSize)
	hashStart = v.Blocks
	if err := readBlock(r, block, hashStart); err != nil {
		return 0, false, err
	}
	if bytes.HasPrefix(block, []byte("verity\x00\x00")) {
		hashStart++
		if err := readBlock(r, block, hashStart); err != nil {
			return 0, false, err
		}
	}
	h := sha256.New()
	h.Write(v.Salt)
	h.Write(block)
	return hashStart, bytes.Equal(h.Sum(nil), v.RootHash[:]), nil
}

func readBlock(r io.ReaderAt, block []byte, number uint64) error {
	if _, err := r.ReadAt(block, int64(number)*release.BlockSize); err != nil {
		return fmt.Errorf("block %d: %w", number, err)
	}
	return nil
}

// verityTable is the parameter line of the kernel's verity target on device. A
// corrupt block panics, so the boot counter of the slot goes down, instead of
// giving programs an I/O error that they may take for anything.
func verityTable(v release.Verity, device string, hashStart uint64) string {
	return fmt.Sprintf("1 %s %s %d %d %d %d sha256 %x %s 1 panic_on_corruption",
		device, device, release.BlockSize, release.BlockSize, v.Blocks, hashStart, v.RootHash, v.SaltText())
}
