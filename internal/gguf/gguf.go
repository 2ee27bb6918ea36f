package gguf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	"oscine.dev/oscine/internal/printable"
)

// Magic is how every GGUF file begins.
const Magic = "GGUF"

// ErrFile is wrapped by the errors of a file that is no sound GGUF.
var ErrFile = errors.New("not a sound GGUF file")

// Bounds of a header. The largest vocabularies of today take 20 MB.
const (
	maxHeader  = 256 << 20
	maxPairs   = 1 << 14
	maxTensors = 1 << 17
	maxKey     = 1 << 16 // bytes of a key, as the format's source says
	maxName    = 64      // bytes of a tensor's name, with its NUL
	maxText    = 1 << 10 // bytes that are kept of a string
	maxDims    = 4
	maxList    = 1 << 12 // elements of a list of numbers that is kept
	maxKept    = 1 << 16 // elements of all such lists
	maxParts   = 1 << 40 // elements along one dimension
)

// Header is what a file says of its model.
type Header struct {
	Version      int
	Architecture string // such as llama or bert
	Name         string // "" where the file names none
	Tensors      int
	TensorBytes  int64 // of all weights
	Quantized    bool  // some of the weights are no floating-point numbers
	Vocabulary   int   // tokens

	Context int // tokens that it was trained for
	Layers  int

	numbers map[string][]int64 // by key; a list has several
	kept    int                // elements of lists
}

// Open reads the header of a file.
func Open(path string) (*Header, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return Read(f, info.Size())
}

// Read reads the header of a file of size bytes. Its errors wrap ErrFile where
// the fault is the file's.
func Read(r io.Reader, size int64) (*Header, error) {
	d := &reader{r: bufio.NewReaderSize(r, 64<<10), left: min(size, maxHeader)}
	h := &Header{numbers: map[string][]int64{}}
	if err := h.read(d, size); err != nil {
		return nil, err
	}
	return h, nil
}

func bad(format string, a ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrFile}, a...)...)
}

func (h *Header) read(d *reader, size int64) error {
	if magic := d.take(len(Magic)); string(magic) != Magic {
		if d.err != nil {
			return d.err
		}
		return bad("it does not begin with %q", Magic)
	}
	version, tensors, pairs := d.uint32(), d.uint64(), d.uint64()
	switch {
	case d.err != nil:
		return d.err
	case version < 2 || version > 3:
		return bad("version %d of the format; versions 2 and 3 are read", version)
	case tensors > maxTensors || pairs > maxPairs:
		return bad("its header announces %d tensors and %d settings, at most %d and %d are accepted", tensors, pairs, maxTensors, maxPairs)
	}
	h.Version, h.Tensors = int(version), int(tensors)
	for range pairs {
		if err := h.pair(d); err != nil {
			return err
		}
	}
	if h.Architecture == "" {
		return bad("it does not name the model's architecture")
	}
	if err := h.tensors(d, size); err != nil {
		return err
	}
	return h.describe()
}

// describe takes what is known of every architecture out of the numbers.
func (h *Header) describe() error {
	for key, into := range map[string]*int{"context_length": &h.Context, "block_count": &h.Layers} {
		n := h.number(key, 0)
		if n < 0 || n > 1<<24 {
			return bad("%s.%s is %d", h.Architecture, key, n)
		}
		*into = int(n)
	}
	if h.Layers > 1<<12 {
		return bad("it has %d layers", h.Layers)
	}
	return nil
}

// number is a setting of the architecture, or otherwise.
func (h *Header) number(key string, otherwise int64) int64 {
	if list := h.numbers[h.Architecture+"."+key]; len(list) > 0 {
		return list[0]
	}
	return otherwise
}

// perLayer is a setting that a file may state for each layer.
func (h *Header) perLayer(key string, layer int, otherwise int64) int64 {
	list := h.numbers[h.Architecture+"."+key]
	switch {
	case len(list) == 0:
		return otherwise
	case len(list) == 1:
		return list[0]
	case layer < len(list):
		return list[layer]
	}
	return 0
}

// Value types of the format.
const (
	typeUint8 = iota
	typeInt8
	typeUint16
	typeInt16
	typeUint32
	typeInt32
	typeFloat32
	typeBool
	typeString
	typeArray
	typeUint64
	typeInt64
	typeFloat64
)

// width is the size of a number of a type, or 0.
func width(kind uint32) int {
	switch kind {
	case typeUint8, typeInt8, typeBool:
		return 1
	case typeUint16, typeInt16:
		return 2
	case typeUint32, typeInt32, typeFloat32:
		return 4
	case typeUint64, typeInt64, typeFloat64:
		return 8
	}
	return 0
}

// pair reads one setting.
func (h *Header) pair(d *reader) error {
	key := d.text(maxKey, maxKey)
	kind := d.uint32()
	if d.err != nil {
		return d.err
	}
	switch {
	case kind == typeString:
		h.setText(key, d.text(math.MaxInt64, maxText))
	case kind == typeArray:
		return h.list(d, key)
	case width(kind) > 0:
		if n, ok := integer(kind, d.take(width(kind))); ok && d.err == nil {
			h.numbers[key] = []int64{n}
		}
	default:
		return bad("setting %q has the type %d, which the format does not know", printable.Text(key), kind)
	}
	return d.err
}

func (h *Header) setText(key, text string) {
	switch key {
	case "general.architecture":
		h.Architecture = text
	case "general.name":
		h.Name = text
	}
}

// list reads an array. Of numbers those of a plausible setting are kept, of
// strings only how many there are.
func (h *Header) list(d *reader, key string) error {
	kind, n := d.uint32(), d.uint64()
	if d.err != nil {
		return d.err
	}
	size := uint64(width(kind))
	switch {
	case kind == typeString:
		size = 8
	case size == 0:
		return bad("setting %q is a list of the type %d, which the format does not know", printable.Text(key), kind)
	}
	if n > uint64(d.left)/size {
		return bad("setting %q announces %d elements, more than the file can hold", printable.Text(key), n)
	}
	if key == "tokenizer.ggml.tokens" {
		h.Vocabulary = int(n)
	}
	if kind == typeString {
		for range n {
			d.text(math.MaxInt64, 0)
			if d.err != nil {
				return d.err
			}
		}
		return nil
	}
	if h.kept += int(min(n, maxList)); n > maxList || h.kept > maxKept {
		d.skip(int64(n * size))
		return d.err
	}
	list := make([]int64, 0, n)
	for range n {
		if v, ok := integer(kind, d.take(int(size))); ok && d.err == nil {
			list = append(list, v)
		}
	}
	h.numbers[key] = list
	return d.err
}

// integer is the value of an integer, in range.
func integer(kind uint32, raw []byte) (int64, bool) {
	if raw == nil {
		return 0, false
	}
	switch kind {
	case typeUint8, typeBool:
		return int64(raw[0]), true
	case typeInt8:
		return int64(int8(raw[0])), true
	case typeUint16:
		return int64(binary.LittleEndian.Uint16(raw)), true
	case typeInt16:
		return int64(int16(binary.LittleEndian.Uint16(raw))), true
	case typeUint32:
		return int64(binary.LittleEndian.Uint32(raw)), true
	case typeInt32:
		return int64(int32(binary.LittleEndian.Uint32(raw))), true
	case typeUint64, typeInt64:
		v := binary.LittleEndian.Uint64(raw)
		return int64(v), v <= math.MaxInt64 || kind == typeInt64
	}
	return 0, false
}

// String describes the model in a few words.
func (h *Header) String() string {
	words := []string{printable.Text(h.Architecture)}
	if h.Name != "" {
		words = append(words, fmt.Sprintf("%q", printable.Text(h.Name)))
	}
	return strings.Join(append(words, printable.Bytes(h.TensorBytes)), ", ")
}
