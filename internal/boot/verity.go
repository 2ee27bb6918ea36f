package boot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// BlockSize is the size of dm-verity's data and hash blocks in bytes.
const BlockSize = 4096

// VerityArgument is the kernel argument that names the root of this version:
// oscine.verity=ROOTHASH,SALT,DATABLOCKS with hash and salt in hex.
const VerityArgument = "oscine.verity"

// ErrNoVerity is returned for a kernel command line without VerityArgument.
var ErrNoVerity = errors.New("kernel argument " + VerityArgument + " is missing")

// maxSalt is the longest salt dm-verity takes, in bytes.
const maxSalt = 256

// Verity identifies one root file system by the top of its hash tree, which
// follows the data on the same partition
// (Documentation/admin-guide/device-mapper/verity.rst, version 1, SHA-256).
type Verity struct {
	RootHash   [sha256.Size]byte
	Salt       []byte
	DataBlocks uint64 // of BlockSize bytes
}

// ParseVerity finds VerityArgument on a kernel command line. It returns
// ErrNoVerity where there is none, and says what is wrong with a bad one.
func ParseVerity(commandLine string) (Verity, error) {
	value, ok := kernelArgument(commandLine, VerityArgument)
	if !ok {
		return Verity{}, ErrNoVerity
	}
	fields := strings.Split(value, ",")
	if len(fields) != 3 {
		return Verity{}, fmt.Errorf("%s=%s: want ROOTHASH,SALT,DATABLOCKS", VerityArgument, value)
	}
	var v Verity
	hash, err := hex.DecodeString(fields[0])
	if err != nil || len(hash) != len(v.RootHash) {
		return Verity{}, fmt.Errorf("%s: root hash %q is not %d bytes of hex", VerityArgument, fields[0], len(v.RootHash))
	}
	copy(v.RootHash[:], hash)
	if fields[1] != "-" { // veritysetup's word for no salt
		v.Salt, err = hex.DecodeString(fields[1])
	}
	if err != nil || len(v.Salt) > maxSalt {
		return Verity{}, fmt.Errorf("%s: salt %q is not up to %d bytes of hex", VerityArgument, fields[1], maxSalt)
	}
	v.DataBlocks, err = strconv.ParseUint(fields[2], 10, 64)
	if err != nil || v.DataBlocks == 0 || v.DataBlocks > math.MaxInt64/BlockSize {
		return Verity{}, fmt.Errorf("%s: %q is no number of data blocks", VerityArgument, fields[2])
	}
	return v, nil
}

// kernelArgument returns the last value of name=value on a command line.
func kernelArgument(commandLine, name string) (value string, ok bool) {
	for _, word := range strings.Fields(commandLine) {
		if v, found := strings.CutPrefix(word, name+"="); found {
			value, ok = v, true
		}
	}
	return value, ok
}

// Match hashes the one top block of the tree that follows the data on r and
// returns the tree's first block when it is this root's, and false when r
// holds another root or none. A superblock as veritysetup writes it is skipped.
func (v Verity) Match(r io.ReaderAt) (hashStart uint64, ok bool, err error) {
	block := make([]byte, BlockSize)
	hashStart = v.DataBlocks
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
	if _, err := r.ReadAt(block, int64(number)*BlockSize); err != nil {
		return fmt.Errorf("block %d: %w", number, err)
	}
	return nil
}

// table is the parameter line of the kernel's verity target on device. A
// corrupt block panics, so the boot counter of the slot goes down, instead of
// giving programs an I/O error that they may take for anything.
func (v Verity) table(device string, hashStart uint64) string {
	salt := "-"
	if len(v.Salt) > 0 {
		salt = hex.EncodeToString(v.Salt)
	}
	return fmt.Sprintf("1 %s %s %d %d %d %d sha256 %x %s 1 panic_on_corruption",
		device, device, BlockSize, BlockSize, v.DataBlocks, hashStart, v.RootHash, salt)
}
