package delta

import (
	"encoding/json"
	"errors"
	"fmt"

	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update"
)

// Bounds of a transfer. Applying one takes the memory of a part, its
// dictionary and its compressed form at the same time.
const (
	maxPart       = 12 << 20 // bytes that one part makes
	maxDictionary = 16 << 20 // bytes of old content that one part uses
	maxCompressed = maxPart + 1<<20
	maxScript     = 1 << 20 // bytes
	maxParts      = 1 << 16
	maxPieces     = 4096 // of old content for one part
	indexFormat   = 1
)

// index is the head of a transfer file, as JSON.
type index struct {
	Format int    `json:"format"` // [indexFormat]
	Parts  []part `json:"parts"`  // in the order of the content, without gaps
}

// part makes the next Size bytes of content.
type part struct {
	Size   int64         `json:"size"`
	SHA256 update.Digest `json:"sha256"` // of what it makes

	// A part with Data holds a zstd frame of that many bytes, whose dictionary
	// is the old pieces one behind the other.
	Data       int64         `json:"data,omitempty"`
	DataSHA256 update.Digest `json:"dataSHA256,omitzero"`
	Old        []piece       `json:"old,omitempty"`
	// Script is how many bytes of what the frame decodes to say what is added to
	// which old bytes; see addOld. 0 for a frame that decodes to the content.
	Script int64 `json:"script,omitempty"`

	// A part with Salt is the verity tree of all content before it and holds no
	// data: it is computed. The salt is in hex, - for none, as on the kernel's
	// command line.
	Salt string `json:"salt,omitempty"`
}

// piece is a range of old content: offset and length in bytes.
type piece [2]int64

// parseIndex reads an index and checks that it makes size bytes of content from
// data bytes of frames.
func parseIndex(text []byte, size, data int64) (*index, error) {
	x := new(index)
	if err := json.Unmarshal(text, x); err != nil {
		return nil, fmt.Errorf("the index of the transfer: %w", err)
	}
	if x.Format != indexFormat {
		return nil, fmt.Errorf("the index of the transfer has format %d, this version reads %d", x.Format, indexFormat)
	}
	if len(x.Parts) == 0 || len(x.Parts) > maxParts {
		return nil, fmt.Errorf("the index of the transfer has %d parts", len(x.Parts))
	}
	for i, p := range x.Parts {
		if err := p.check(size); err != nil {
			return nil, fmt.Errorf("the index of the transfer: part %d: %w", i, err)
		}
		size, data = size-p.Size, data-p.Data
	}
	if size != 0 || data != 0 {
		return nil, fmt.Errorf("the index of the transfer leaves %d bytes of content and %d bytes of data", size, data)
	}
	return x, nil
}

func (p *part) check(left int64) error {
	switch {
	case p.Size <= 0 || p.Size > left:
		return fmt.Errorf("size %d", p.Size)
	case p.Salt != "":
		if p.Data != 0 || len(p.Old) != 0 {
			return errors.New("a hash tree with data")
		}
		_, err := release.ParseSalt(p.Salt)
		return err
	case p.Script < 0 || p.Script > maxScript || p.Script > 0 && len(p.Old) == 0:
		return fmt.Errorf("a script of %d bytes", p.Script)
	case p.Size > maxPart || p.Data <= 0 || p.Data > maxCompressed || len(p.Old) > maxPieces:
		return fmt.Errorf("size %d, data %d, %d old pieces", p.Size, p.Data, len(p.Old))
	}
	total := int64(0)
	for _, o := range p.Old {
		if o[0] < 0 || o[1] <= 0 || o[1] > maxDictionary-total || o[0] > 1<<50 {
			return fmt.Errorf("old piece of %d bytes at %d", o[1], o[0])
		}
		total += o[1]
	}
	return nil
}
