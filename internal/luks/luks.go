package luks

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/uuid"
)

// Errors that a caller can act on.
var (
	// ErrNoHeader is returned by Read for a device without a LUKS2 header that is whole.
	ErrNoHeader = errors.New("no whole LUKS2 header")
	// ErrWrongKey is returned by Unlock for a passphrase that opens no key slot.
	ErrWrongKey = errors.New("the key opens no key slot")
)

// Magic is what a device with a LUKS header begins with.
const Magic = "LUKS\xba\xbe"

// How a header lies on a device that Create made it for: two copies, the key slots,
// and from DataStart on the encrypted data. The last MiB before that is nobody's:
// cryptsetup leaves it alone, as the header does not count it to the key slots.
const (
	KeySize    = 64       // bytes of a volume key: two keys of AES-256
	SectorSize = 4096     // bytes that are encrypted together
	DataStart  = 16 << 20 // bytes
	FreeStart  = 15 << 20 // bytes; the MiB up to DataStart
)

const (
	headerSize    = 16 << 10 // of one copy
	binarySize    = 4096     // of its part before the JSON text
	maxHeaderSize = 4 << 20
	secondMagic   = "SKUL\xba\xbe"
	cipherName    = "aes-xts-plain64"
)

// binaryHeader is the first part of a header (LUKS2 On-Disk Format Specification,
// section 2.1), in big endian.
type binaryHeader struct {
	Magic       [6]byte
	Version     uint16
	Size        uint64 // with the JSON area
	Sequence    uint64 // the copy with the higher one counts
	Label       [48]byte
	ChecksumAlg [32]byte
	Salt        [64]byte
	UUID        [40]byte
	Subsystem   [48]byte
	Offset      uint64 // of this copy
	_           [184]byte
	Checksum    [64]byte
}

// Header is a LUKS2 header in memory.
type Header struct {
	binary binaryHeader
	meta   metadata
}

// metadata is the JSON text of a header. What this package neither makes nor reads
// is kept as it is.
type metadata struct {
	Keyslots map[string]json.RawMessage `json:"keyslots"`
	Tokens   map[string]json.RawMessage `json:"tokens"`
	Segments map[string]segment         `json:"segments"`
	Digests  map[string]digest          `json:"digests"`
	Config   json.RawMessage            `json:"config"`
}

// segment is where the encrypted data lies. Numbers of 64 bits are strings in this
// format.
type segment struct {
	Type       string          `json:"type"`
	Offset     uint64          `json:"offset,string"`
	Size       string          `json:"size"`
	Tweak      uint64          `json:"iv_tweak,string"`
	Encryption string          `json:"encryption"`
	SectorSize int64           `json:"sector_size"`
	Integrity  json.RawMessage `json:"integrity,omitempty"`
}

// config is the part of metadata that is read of it.
type config struct {
	JSONSize     uint64 `json:"json_size,string"`
	KeyslotsSize uint64 `json:"keyslots_size,string"`
}

// NewKey returns a new volume key.
func NewKey() []byte { return random(KeySize) }

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	return b
}

// Create returns a header for a volume key, without key slots. The label is at most
// 47 bytes.
func Create(volumeKey []byte, label string) *Header {
	h := &Header{binary: binaryHeader{Version: 2, Size: headerSize}}
	copy(h.binary.Label[:47], label)
	copy(h.binary.ChecksumAlg[:], "sha256")
	copy(h.binary.UUID[:], uuid.NewString())
	h.meta = metadata{
		Keyslots: map[string]json.RawMessage{}, Tokens: map[string]json.RawMessage{},
		Segments: map[string]segment{"0": {Type: "crypt", Offset: DataStart, Size: "dynamic", Encryption: cipherName, SectorSize: SectorSize}},
		Digests:  map[string]digest{"0": newDigest(volumeKey)},
		Config:   json.RawMessage(fmt.Sprintf(`{"json_size":"%d","keyslots_size":"%d"}`, headerSize-binarySize, FreeStart-2*headerSize)),
	}
	return h
}

// Read reads the header of a device: the newer of its two copies that is whole.
func Read(r io.ReaderAt) (*Header, error) {
	var newest *Header
	var errs []error
	// The second copy follows the first, whose size is one of a few.
	for _, at := range []int64{0, 0x4000, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000, 0x100000, 0x200000, 0x400000} {
		h, err := readAt(r, at)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if newest == nil || h.binary.Sequence > newest.binary.Sequence {
			newest = h
		}
	}
	if newest == nil {
		return nil, fmt.Errorf("%w: %w", ErrNoHeader, errs[0])
	}
	return newest, nil
}

func readAt(r io.ReaderAt, at int64) (*Header, error) {
	first := make([]byte, binarySize)
	if _, err := r.ReadAt(first, at); err != nil {
		return nil, err
	}
	h := &Header{}
	if err := binary.Read(bytes.NewReader(first), binary.BigEndian, &h.binary); err != nil {
		return nil, err
	}
	magic := Magic
	if at > 0 {
		magic = secondMagic
	}
	b := &h.binary
	switch {
	case string(b.Magic[:]) != magic || b.Version != 2:
		return nil, errors.New("not LUKS2")
	case b.Offset != uint64(at) || b.Size < 2*binarySize || b.Size > maxHeaderSize || b.Size&(b.Size-1) != 0 || at > 0 && b.Size != uint64(at):
		return nil, fmt.Errorf("size %d or place %d is wrong", b.Size, b.Offset)
	case text(b.ChecksumAlg[:]) != "sha256":
		return nil, fmt.Errorf("checksum %q: only sha256 is known", text(b.ChecksumAlg[:]))
	}
	whole := make([]byte, b.Size)
	if _, err := r.ReadAt(whole, at); err != nil {
		return nil, err
	}
	if sum := checksum(whole); !bytes.Equal(sum[:], b.Checksum[:sha256.Size]) {
		return nil, errors.New("the checksum is wrong")
	}
	body, _, _ := bytes.Cut(whole[binarySize:], []byte{0})
	if err := json.Unmarshal(body, &h.meta); err != nil {
		return nil, fmt.Errorf("its JSON text: %w", err)
	}
	return h, h.check()
}

// check finds what would go wrong later: a header comes from a disk that anybody
// may have written.
func (h *Header) check() error {
	s, ok := h.meta.Segments["0"]
	switch {
	case !ok || len(h.meta.Segments) != 1 || s.Type != "crypt" || s.Size != "dynamic" || s.Integrity != nil:
		return errors.New("its data is not one encrypted segment up to the end of the device")
	case s.Encryption != cipherName || s.SectorSize != 512 && s.SectorSize != SectorSize || s.Tweak != 0:
		return fmt.Errorf("its data is encrypted with %s in sectors of %d bytes, want %s", s.Encryption, s.SectorSize, cipherName)
	case s.Offset%SectorSize != 0 || s.Offset < 2*h.binary.Size || s.Offset > 1<<40:
		return fmt.Errorf("its data begins at byte %d", s.Offset)
	}
	if h.meta.Keyslots == nil {
		h.meta.Keyslots = map[string]json.RawMessage{}
	}
	if h.meta.Tokens == nil {
		h.meta.Tokens = map[string]json.RawMessage{}
	}
	return nil
}

// checksum is that of one copy, whose own field counts as zero.
func checksum(whole []byte) [sha256.Size]byte {
	const at, size = 448, 64
	sum := sha256.New()
	sum.Write(whole[:at])
	sum.Write(make([]byte, size))
	sum.Write(whole[at+size:])
	return [sha256.Size]byte(sum.Sum(nil))
}

// text is a field that ends at its first zero.
func text(field []byte) string {
	t, _, _ := bytes.Cut(field, []byte{0})
	return string(t)
}

// Device is what a header is written to.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Write writes both copies, one after the other: one of them is whole at any time.
func (h *Header) Write(d Device) error {
	body, err := json.Marshal(h.meta)
	if err != nil {
		return err
	}
	if uint64(len(body)) >= h.binary.Size-binarySize {
		return fmt.Errorf("write the LUKS header: %d bytes of JSON text do not fit", len(body))
	}
	h.binary.Sequence++
	for i, magic := range []string{Magic, secondMagic} {
		b := h.binary
		copy(b.Magic[:], magic)
		copy(b.Salt[:], random(len(b.Salt)))
		b.Offset, b.Checksum = uint64(i)*b.Size, [64]byte{}
		var out bytes.Buffer
		_ = binary.Write(&out, binary.BigEndian, &b) // a bytes.Buffer takes every fixed-size value
		whole := make([]byte, b.Size)
		copy(whole, out.Bytes())
		copy(whole[binarySize:], body)
		sum := checksum(whole)
		copy(whole[448:], sum[:])
		if _, err := d.WriteAt(whole, int64(b.Offset)); err != nil {
			return fmt.Errorf("write the LUKS header: %w", err)
		}
		if err := d.Sync(); err != nil {
			return fmt.Errorf("write the LUKS header: %w", err)
		}
	}
	return nil
}

// DataStart is where the encrypted data begins, in bytes.
func (h *Header) DataStart() int64 { return int64(h.meta.Segments["0"].Offset) }

// Table is the line of parameters of dm-crypt for the data on a device, which is
// named MAJOR:MINOR.
func (h *Header) Table(volumeKey []byte, device string) string {
	s := h.meta.Segments["0"]
	line := fmt.Sprintf("%s %x 0 %s %d", s.Encryption, volumeKey, device, s.Offset/512)
	if s.SectorSize != 512 {
		line += fmt.Sprintf(" 1 sector_size:%d", s.SectorSize)
	}
	return line
}

// KeyOf returns the volume key in a line that Table made.
func KeyOf(table string) ([]byte, error) {
	fields := strings.Fields(table)
	var key []byte
	if len(fields) < 2 {
		return nil, errors.New("not a table of dm-crypt")
	}
	if _, err := fmt.Sscanf(fields[1], "%x", &key); err != nil || len(key) != KeySize {
		return nil, errors.New("the table of dm-crypt holds no key")
	}
	return key, nil
}
