package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"oscine.dev/oscine/internal/release"
)

// A pack's file is an erofs file system and, behind it, the dm-verity hash tree of
// its blocks, as on a root partition: no superblock, no salt. The file system's own
// superblock says where the tree begins, and the top of the tree gives the root hash.
// Packs made before there were trees end with the file system.

// appendTree writes the hash tree behind the file system.
func appendTree(file string) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	tree, _, err := release.HashTree(io.NewSectionReader(f, 0, info.Size()), nil)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(tree, info.Size()); err != nil {
		return err
	}
	return f.Close()
}

// readVerity reads what the hash tree in a pack's file says, for which its top is
// enough. It returns nil where the file has none, and ErrNotPack where it holds
// neither a file system alone nor one with its tree.
func readVerity(r io.ReaderAt, size int64) (*release.Verity, error) {
	data, err := dataSize(r)
	if err != nil {
		return nil, err
	}
	if data == size {
		return nil, nil
	}
	blocks, err := release.DataBlocks(size)
	if err != nil || int64(blocks)*release.BlockSize != data {
		return nil, fmt.Errorf("%w: its file system has %d bytes, and the %d of the file are neither these nor these with their hash tree: build or fetch it again", ErrNotPack, data, size)
	}
	v, err := release.ReadVerity(r, blocks, nil)
	if err != nil {
		return nil, err
	}
	return &v, nil
}

// dataSize is how many bytes the file system in a pack's file has (struct
// erofs_super_block: blkszbits and blocks).
func dataSize(r io.ReaderAt) (int64, error) {
	head, err := readHead(io.NewSectionReader(r, 0, headBytes))
	if err != nil {
		return 0, err
	}
	bits, blocks := head[superblock+12], binary.LittleEndian.Uint32(head[superblock+36:])
	if bits < 9 || bits > 16 {
		return 0, fmt.Errorf("%w: its file system has blocks of 2^%d bytes", ErrNotPack, bits)
	}
	return int64(blocks) << bits, nil
}

// checkTree holds that a pack's hash tree is that of its data, so that one that was
// made wrong is refused before anything runs from it.
func checkTree(r io.ReaderAt, v *release.Verity) error {
	data := int64(v.Blocks) * release.BlockSize
	tree, got, err := release.HashTree(io.NewSectionReader(r, 0, data), v.Salt)
	if err != nil {
		return err
	}
	there := make([]byte, len(tree))
	if _, err := r.ReadAt(there, data); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if got.RootHash != v.RootHash || !bytes.Equal(tree, there) {
		return fmt.Errorf("%w: its hash tree is not that of its data: build it again", ErrNotPack)
	}
	return nil
}

// verityOf reads a pack's file for its root hash, "" where it has none.
func verityOf(f *os.File) (string, error) {
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	v, err := readVerity(f, info.Size())
	if err != nil || v == nil {
		return "", err
	}
	return v.String(), nil
}
