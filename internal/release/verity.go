package release

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

// BlockSize is the size in bytes of dm-verity's data and hash blocks.
const BlockSize = 4096

// VerityArgument is the kernel argument that names the root of a version:
// oscine.verity=ROOTHASH,SALT,BLOCKS with hash and salt in hex.
const VerityArgument = "oscine.verity"

// ErrNoVerity is returned for a kernel command line without VerityArgument.
var ErrNoVerity = errors.New("the kernel command line names no root: " + VerityArgument + " is missing")

const (
	hashSize = sha256.Size
	maxSalt  = 256 // bytes, the longest that dm-verity takes
	noSalt   = "-" // the kernel's word for it
)

// Verity identifies a root, or the data of a pack, by the top of its hash tree and tells
// how to open it with dm-verity: hash type 1, SHA-256, blocks of BlockSize, no superblock,
// the tree right behind the data (Documentation/admin-guide/device-mapper/verity.rst).
type Verity struct {
	RootHash [hashSize]byte
	Salt     []byte // at most 256 bytes; may be empty
	Blocks   uint64 // of data; the tree begins at this block
}

// String names v: ROOTHASH,SALT,BLOCKS with hash and salt in hex.
func (v Verity) String() string {
	return hex.EncodeToString(v.RootHash[:]) + "," + v.SaltText() + "," + strconv.FormatUint(v.Blocks, 10)
}

// Argument is the word of the kernel command line that names v.
func (v Verity) Argument() string { return VerityArgument + "=" + v.String() }

// Table is the parameter line of the kernel's verity target on device, which holds
// the data and, from block hashStart on, the tree. Options are the kernel's, such as
// panic_on_corruption; without one a block that does not have its hash is a read error.
func (v Verity) Table(device string, hashStart uint64, options ...string) string {
	table := fmt.Sprintf("1 %s %s %d %d %d %d sha256 %x %s", device, device, BlockSize, BlockSize, v.Blocks, hashStart, v.RootHash, v.SaltText())
	if len(options) > 0 {
		table += fmt.Sprintf(" %d %s", len(options), strings.Join(options, " "))
	}
	return table
}

// Sectors is how many sectors of 512 bytes the data has.
func (v Verity) Sectors() uint64 { return v.Blocks * (BlockSize / 512) }

// SaltText is the salt in hex, as dm-verity's table takes it as well: - stands
// for none.
func (v Verity) SaltText() string {
	if len(v.Salt) == 0 {
		return noSalt
	}
	return hex.EncodeToString(v.Salt)
}

// ParseSalt reads what [Verity.SaltText] writes.
func ParseSalt(text string) ([]byte, error) {
	if text == noSalt {
		return nil, nil
	}
	salt, err := hex.DecodeString(text)
	if err != nil || len(salt) == 0 || len(salt) > maxSalt {
		return nil, fmt.Errorf("the salt is not 1 to %d bytes in hex, nor - for none", maxSalt)
	}
	return salt, nil
}

// FindVerity reads the verity argument of a kernel command line; of several the
// last counts, as for every argument of the kernel. It returns ErrNoVerity
// where there is none, and says what is wrong with a bad one.
func FindVerity(commandLine string) (Verity, error) {
	value, found := "", false
	for word := range strings.FieldsSeq(commandLine) {
		if v, ok := strings.CutPrefix(word, VerityArgument+"="); ok {
			value, found = v, true
		}
	}
	if !found {
		return Verity{}, ErrNoVerity
	}
	v, err := ParseVerity(value)
	if err != nil {
		return Verity{}, fmt.Errorf("%s=%s: %w", VerityArgument, value, err)
	}
	return v, nil
}

// ParseVerity reads what [Verity.String] writes.
func ParseVerity(value string) (v Verity, err error) {
	fields := strings.Split(value, ",")
	if len(fields) != 3 {
		return v, errors.New("must be ROOTHASH,SALT,BLOCKS")
	}
	hash, err := hex.DecodeString(fields[0])
	if err != nil || len(hash) != hashSize {
		return v, fmt.Errorf("the root hash is not %d bytes in hex", hashSize)
	}
	copy(v.RootHash[:], hash)
	if v.Salt, err = ParseSalt(fields[1]); err != nil {
		return v, err
	}
	v.Blocks, err = strconv.ParseUint(fields[2], 10, 64)
	if err != nil || v.Blocks == 0 || v.Blocks > math.MaxInt64/BlockSize {
		return v, fmt.Errorf("%q is not a number of blocks", fields[2])
	}
	return v, nil
}

// ReadVerity names data of so many blocks by the tree that follows it on r, without
// a superblock. It hashes the top of the tree and nothing else.
func ReadVerity(r io.ReaderAt, blocks uint64, salt []byte) (Verity, error) {
	v, block := Verity{Salt: salt, Blocks: blocks}, make([]byte, BlockSize)
	if err := readBlock(r, block, blocks); err != nil {
		return v, err
	}
	copy(v.RootHash[:], saltedHash(salt, block))
	return v, nil
}

// Match hashes the one top block of the tree that follows the data on r and
// returns the tree's first block when it is this root, and false when r holds
// another root or none. A superblock as veritysetup writes it is skipped.
func (v Verity) Match(r io.ReaderAt) (hashStart uint64, ok bool, err error) {
	block := make([]byte, BlockSize)
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
	return hashStart, bytes.Equal(saltedHash(v.Salt, block), v.RootHash[:]), nil
}

func readBlock(r io.ReaderAt, block []byte, number uint64) error {
	if _, err := r.ReadAt(block, int64(number)*BlockSize); err != nil {
		return fmt.Errorf("block %d: %w", number, err)
	}
	return nil
}
