package delta

import (
	"bytes"
	"cmp"
	"debug/pe"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"

	erofs "github.com/erofs/go-erofs"

	"oscine.dev/oscine/internal/release"
)

// Content is a file to make transfers of, with what is known of its inside.
type Content struct {
	Data io.ReaderAt
	Size int64 // bytes

	spans  []span
	verity *release.Verity // the content ends with this root's hash tree
}

// span is a named range of content.
type span struct {
	name         string
	offset, size int64
}

// Root describes a root partition: an uncompressed erofs followed by the hash
// tree of v.
func Root(data io.ReaderAt, size int64, v release.Verity) (*Content, error) {
	c := &Content{Data: data, Size: size, verity: &v}
	if int64(v.Blocks) >= size/release.BlockSize {
		return nil, fmt.Errorf("the root has %d bytes, too few for %d blocks and their hash tree", size, v.Blocks)
	}
	root, err := erofs.Open(io.NewSectionReader(data, 0, size))
	if err != nil {
		return nil, fmt.Errorf("open the root: %w", err)
	}
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		ranges, ok := info.(interface{ DataRange() []erofs.DataRange })
		if !ok {
			return nil
		}
		for _, r := range ranges.DataRange() {
			if r.Offset >= 0 && r.Size > 0 && r.Size <= c.treeStart()-r.Offset {
				c.spans = append(c.spans, span{name, r.Offset, r.Size})
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the root: %w", err)
	}
	c.sort()
	return c, nil
}

// Image describes a unified kernel image, whose sections are its files.
func Image(data []byte) (*Content, error) {
	c := &Content{Data: bytes.NewReader(data), Size: int64(len(data))}
	file, err := pe.NewFile(c.Data)
	if err != nil {
		return nil, fmt.Errorf("read the kernel image: %w", err)
	}
	for _, s := range file.Sections {
		if int64(s.Offset)+int64(s.Size) <= c.Size && s.Size > 0 {
			c.spans = append(c.spans, span{s.Name, int64(s.Offset), int64(s.Size)})
		}
	}
	c.sort()
	return c, nil
}

// Plain describes content of which nothing more is known.
func Plain(data io.ReaderAt, size int64) *Content { return &Content{Data: data, Size: size} }

// treeStart is where the hash tree begins, the end for content without one.
func (c *Content) treeStart() int64 {
	if c.verity == nil {
		return c.Size
	}
	return int64(c.verity.Blocks) * release.BlockSize
}

func (c *Content) sort() {
	slices.SortFunc(c.spans, func(a, b span) int { return cmp.Compare(a.offset, b.offset) })
}

// covering returns the spans with what lies between them, so that they cover
// everything up to the hash tree. What two spans share belongs to the first.
func (c *Content) covering() []span {
	var out []span
	at := int64(0)
	for _, s := range c.spans {
		if s.offset+s.size <= at {
			continue
		}
		if s.offset > at {
			out = append(out, span{"", at, s.offset - at})
			at = s.offset
		}
		out = append(out, span{s.name, at, s.offset + s.size - at})
		at = s.offset + s.size
	}
	if end := c.treeStart(); at < end {
		out = append(out, span{"", at, end - at})
	}
	return out
}

// likeness finds the old span that a new one most likely came from.
type likeness struct {
	exact  map[string]span
	byBase map[string][]span // by the base name without digits
	gaps   []span
}

func newLikeness(old *Content) *likeness {
	l := &likeness{exact: map[string]span{}, byBase: map[string][]span{}}
	for _, s := range old.covering() {
		if s.name == "" {
			l.gaps = append(l.gaps, s)
			continue
		}
		l.exact[s.name] = s
		l.byBase[baseOf(s.name)] = append(l.byBase[baseOf(s.name)], s)
	}
	return l
}

// baseOf is the base name without digits: libx.so.1.2 and libx.so.1.3 are one
// file, as are modules of two kernels.
func baseOf(name string) string {
	return strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' {
			return -1
		}
		return c
	}, path.Base(name))
}

// find returns no span when no old one is like s.
func (l *likeness) find(s span) (span, bool) {
	candidates := l.byBase[baseOf(s.name)]
	if s.name == "" {
		candidates = l.gaps
	} else if old, ok := l.exact[s.name]; ok {
		return old, true
	}
	best, score := span{}, math.Inf(-1)
	for _, old := range candidates {
		// The more of the path agrees from behind, the better; then the size.
		common := float64(commonSuffix(old.name, s.name)) - math.Abs(float64(old.size-s.size))/float64(old.size+s.size)
		if s.name == "" {
			common = -math.Abs(float64(old.offset - s.offset))
		}
		if common > score {
			best, score = old, common
		}
	}
	return best, len(candidates) > 0
}

func commonSuffix(a, b string) (n int) {
	for n < len(a) && n < len(b) && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	return n
}
