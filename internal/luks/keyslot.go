package luks

import (
	"bytes"
	"cmp"
	"crypto/aes"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"golang.org/x/crypto/xts"
)

// iterations of PBKDF2 are as few as cryptsetup allows: what opens a key slot here is
// random, of 200 bits and more, and cannot be guessed.
const iterations = 1000

// Bounds on a key slot.
const (
	maxIterations = 1 << 24
	stripes       = 4000
	areaSize      = (KeySize*stripes + 4095) / 4096 * 4096
	areaSector    = 512
	maxSlots      = 32
)

// keyslot is one way to the volume key (section 3.2 of the specification), as far as
// this package opens it.
type keyslot struct {
	Type    string `json:"type"`
	KeySize int    `json:"key_size"`
	AF      struct {
		Type    string `json:"type"`
		Stripes int    `json:"stripes"`
		Hash    string `json:"hash"`
	} `json:"af"`
	Area area `json:"area"`
	KDF  struct {
		Type       string `json:"type"`
		Hash       string `json:"hash"`
		Iterations int    `json:"iterations"`
		Salt       []byte `json:"salt"`
	} `json:"kdf"`
}

// area is where a key slot lies.
type area struct {
	Type       string `json:"type"`
	Offset     uint64 `json:"offset,string"`
	Size       uint64 `json:"size,string"`
	Encryption string `json:"encryption"`
	KeySize    int    `json:"key_size"`
}

// digest tells a volume key from others.
type digest struct {
	Type       string   `json:"type"`
	Keyslots   []string `json:"keyslots"`
	Segments   []string `json:"segments"`
	Hash       string   `json:"hash"`
	Iterations int      `json:"iterations"`
	Salt       []byte   `json:"salt"`
	Digest     []byte   `json:"digest"`
}

func newDigest(volumeKey []byte) digest {
	d := digest{Type: "pbkdf2", Keyslots: []string{}, Segments: []string{"0"}, Hash: "sha256", Iterations: iterations, Salt: random(32)}
	d.Digest, _ = d.of(volumeKey) // these parameters are good
	return d
}

func (d digest) of(volumeKey []byte) ([]byte, error) {
	if d.Type != "pbkdf2" || d.Hash != "sha256" {
		return nil, fmt.Errorf("digest %s with %s is not known here", d.Type, d.Hash)
	}
	return derive(volumeKey, d.Salt, d.Iterations, sha256.Size)
}

func derive(secret, salt []byte, count, size int) ([]byte, error) {
	if count < 1 || count > maxIterations {
		return nil, fmt.Errorf("%d iterations of PBKDF2 are out of range", count)
	}
	return pbkdf2.Key(sha256.New, string(secret), salt, count, size)
}

// Slots returns the numbers of the key slots, in order.
func (h *Header) Slots() []int {
	var slots []int
	for name := range h.meta.Keyslots {
		if n, err := strconv.Atoi(name); err == nil {
			slots = append(slots, n)
		}
	}
	slices.Sort(slots)
	return slots
}

// Unlock returns the volume key that the passphrase opens in one of the slots; those
// that only cryptsetup can open (argon2id) are passed over.
func (h *Header) Unlock(r io.ReaderAt, passphrase []byte, slots ...int) ([]byte, error) {
	var errs []error
	for _, n := range slots {
		key, err := h.open(r, n, passphrase)
		if err == nil {
			return key, nil
		}
		if !errors.Is(err, ErrWrongKey) {
			errs = append(errs, fmt.Errorf("key slot %d: %w", n, err))
		}
	}
	return nil, errors.Join(append([]error{ErrWrongKey}, errs...)...)
}

func (h *Header) open(r io.ReaderAt, slot int, passphrase []byte) ([]byte, error) {
	s, err := h.slot(slot)
	if err != nil {
		return nil, err
	}
	unlock, err := derive(passphrase, s.KDF.Salt, s.KDF.Iterations, s.Area.KeySize)
	if err != nil {
		return nil, err
	}
	material := make([]byte, (s.KeySize*s.AF.Stripes+areaSector-1)/areaSector*areaSector)
	if _, err := r.ReadAt(material, int64(s.Area.Offset)); err != nil {
		return nil, err
	}
	if err := crypt(unlock, material, false); err != nil {
		return nil, err
	}
	key := merge(material[:s.KeySize*s.AF.Stripes], s.KeySize)
	for _, d := range h.meta.Digests {
		if !slices.Contains(d.Segments, "0") {
			continue
		}
		sum, err := d.of(key)
		if err != nil {
			return nil, err
		}
		if subtle.ConstantTimeCompare(sum, d.Digest) == 1 {
			return key, nil
		}
	}
	return nil, ErrWrongKey
}

// slot returns a key slot that this package can open.
func (h *Header) slot(n int) (*keyslot, error) {
	var s keyslot
	raw, ok := h.meta.Keyslots[strconv.Itoa(n)]
	if !ok {
		return nil, errors.New("is not there")
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	switch {
	case s.Type != "luks2" || s.AF.Type != "luks1" || s.AF.Hash != "sha256" || s.KDF.Type != "pbkdf2" || s.KDF.Hash != "sha256":
		return nil, fmt.Errorf("is of a kind (%s, %s) that only cryptsetup opens", s.Type, s.KDF.Type)
	case s.Area.Type != "raw" || s.Area.Encryption != cipherName || s.Area.KeySize != KeySize:
		return nil, fmt.Errorf("is encrypted with %s, want %s", s.Area.Encryption, cipherName)
	case s.KeySize != KeySize || s.AF.Stripes < 1 || s.AF.Stripes > stripes:
		return nil, fmt.Errorf("holds a key of %d bytes in %d stripes", s.KeySize, s.AF.Stripes)
	case s.Area.Offset < 2*h.binary.Size || s.Area.Offset > maxHeaderSize<<6:
		return nil, fmt.Errorf("lies at byte %d", s.Area.Offset)
	}
	return &s, nil
}

// AddKey makes a key slot for the passphrase, which must have at least 128 bits that
// cannot be guessed, and returns its number. The slot counts once the header is
// written.
func (h *Header) AddKey(d Device, passphrase, volumeKey []byte) (int, error) {
	n := 0
	for ; h.meta.Keyslots[strconv.Itoa(n)] != nil; n++ {
		if n == maxSlots {
			return 0, errors.New("all LUKS key slots are taken: remove one with cryptsetup luksKillSlot")
		}
	}
	at, err := h.room()
	if err != nil {
		return 0, err
	}
	s := keyslot{Type: "luks2", KeySize: KeySize, Area: area{"raw", at, areaSize, cipherName, KeySize}}
	s.AF.Type, s.AF.Stripes, s.AF.Hash = "luks1", stripes, "sha256"
	s.KDF.Type, s.KDF.Hash, s.KDF.Iterations, s.KDF.Salt = "pbkdf2", "sha256", iterations, random(32)
	unlock, err := derive(passphrase, s.KDF.Salt, s.KDF.Iterations, KeySize)
	if err != nil {
		return 0, err
	}
	material := make([]byte, areaSize)
	split(material[:KeySize*stripes], volumeKey)
	if err := crypt(unlock, material, true); err != nil {
		return 0, err
	}
	if _, err := d.WriteAt(material, int64(at)); err != nil {
		return 0, fmt.Errorf("write LUKS key slot %d: %w", n, err)
	}
	if err := d.Sync(); err != nil {
		return 0, fmt.Errorf("write LUKS key slot %d: %w", n, err)
	}
	raw, err := json.Marshal(s)
	if err != nil {
		return 0, err
	}
	h.meta.Keyslots[strconv.Itoa(n)] = raw
	for name, dig := range h.meta.Digests {
		if slices.Contains(dig.Segments, "0") {
			dig.Keyslots = append(dig.Keyslots, strconv.Itoa(n))
			h.meta.Digests[name] = dig
		}
	}
	return n, nil
}

// room finds space for a key slot between the others.
func (h *Header) room() (uint64, error) {
	var c config
	if err := json.Unmarshal(h.meta.Config, &c); err != nil {
		return 0, fmt.Errorf("the LUKS header's config: %w", err)
	}
	var taken []area
	for _, raw := range h.meta.Keyslots {
		var s struct{ Area area }
		if err := json.Unmarshal(raw, &s); err != nil {
			return 0, fmt.Errorf("a LUKS key slot: %w", err)
		}
		taken = append(taken, s.Area)
	}
	slices.SortFunc(taken, func(a, b area) int { return cmp.Compare(a.Offset, b.Offset) })
	at := 2 * h.binary.Size
	end := min(at+c.KeyslotsSize, uint64(h.DataStart()))
	for _, a := range taken {
		if at+areaSize <= a.Offset {
			break
		}
		at = max(at, (a.Offset+a.Size+4095)/4096*4096)
	}
	if at+areaSize > end || at+areaSize < at {
		return 0, errors.New("no room for another LUKS key slot: remove one with cryptsetup luksKillSlot")
	}
	return at, nil
}

// RemoveKey takes a key slot out of the header. Once that is written, Erase makes its
// key material unreadable.
func (h *Header) RemoveKey(slot int) (erase func(Device) error) {
	name := strconv.Itoa(slot)
	s, err := h.slot(slot)
	delete(h.meta.Keyslots, name)
	same := func(other string) bool { return other == name }
	for id, d := range h.meta.Digests {
		d.Keyslots = slices.DeleteFunc(d.Keyslots, same)
		h.meta.Digests[id] = d
	}
	return func(d Device) error {
		if err != nil {
			return nil // not one of ours, or not there
		}
		_, werr := d.WriteAt(random(int(min(s.Area.Size, areaSize))), int64(s.Area.Offset))
		return errors.Join(werr, d.Sync())
	}
}

// token is the part of a token that every kind has.
type token struct {
	Type     string   `json:"type"`
	Keyslots []string `json:"keyslots"`
}

// Token returns the token of a kind and the key slots that it is for; nil where the
// header has none.
func (h *Header) Token(kind string) (raw json.RawMessage, slots []int) {
	for _, name := range slices.Sorted(maps.Keys(h.meta.Tokens)) {
		var t token
		if json.Unmarshal(h.meta.Tokens[name], &t) != nil || t.Type != kind {
			continue
		}
		for _, s := range t.Keyslots {
			if n, err := strconv.Atoi(s); err == nil {
				slots = append(slots, n)
			}
		}
		return h.meta.Tokens[name], slots
	}
	return nil, nil
}

// SetToken puts a token for a key slot in the place of the one of its kind. fields
// are what it holds beside.
func (h *Header) SetToken(kind string, slot int, fields map[string]any) error {
	all := maps.Clone(fields)
	if all == nil {
		all = map[string]any{}
	}
	all["type"], all["keyslots"] = kind, []string{strconv.Itoa(slot)}
	raw, err := json.Marshal(all)
	if err != nil {
		return err
	}
	place := ""
	for name, old := range h.meta.Tokens {
		var t token
		if json.Unmarshal(old, &t) == nil && t.Type == kind {
			place = name
		}
	}
	for n := 0; place == ""; n++ {
		if h.meta.Tokens[strconv.Itoa(n)] == nil {
			place = strconv.Itoa(n)
		}
	}
	h.meta.Tokens[place] = raw
	return nil
}

// crypt encrypts or decrypts a key slot in place.
func crypt(key, material []byte, encrypt bool) error {
	c, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		return err
	}
	for i := 0; i*areaSector < len(material); i++ {
		sector := material[i*areaSector:][:areaSector]
		if encrypt {
			c.Encrypt(sector, sector, uint64(i))
		} else {
			c.Decrypt(sector, sector, uint64(i))
		}
	}
	return nil
}

// split spreads a key over stripes, of which all are needed to have it again
// (anti-forensic splitter of LUKS1).
func split(into, key []byte) {
	size := len(key)
	last := len(into) - size
	copy(into[:last], random(last))
	state := make([]byte, size)
	for at := 0; at < last; at += size {
		subtle.XORBytes(state, state, into[at:at+size])
		diffuse(state)
	}
	subtle.XORBytes(into[last:], state, key)
}

// merge is the reverse of split.
func merge(material []byte, size int) []byte {
	state := make([]byte, size)
	last := len(material) - size
	for at := 0; at < last; at += size {
		subtle.XORBytes(state, state, material[at:at+size])
		diffuse(state)
	}
	subtle.XORBytes(state, state, material[last:])
	return state
}

// diffuse hashes each part of a block with its number.
func diffuse(block []byte) {
	var b bytes.Buffer
	for i := 0; i*sha256.Size < len(block); i++ {
		part := block[i*sha256.Size : min((i+1)*sha256.Size, len(block))]
		b.Reset()
		_ = binary.Write(&b, binary.BigEndian, uint32(i)) // a bytes.Buffer takes every fixed-size value
		b.Write(part)
		sum := sha256.Sum256(b.Bytes())
		copy(part, sum[:])
	}
}
