package hardware

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"oscine.dev/oscine/internal/bounded"
)

// Bounds of a topology file: real ones have some hundred elements, those
// of a rack some thousand.
const (
	maxTopologyBytes = 8 << 20
	maxTopologyDepth = 64
	maxTopologyNodes = 1 << 14
)

// ErrTopology says that a file is not a topology of NCCL or RCCL.
var ErrTopology = errors.New("not an NCCL or RCCL topology")

// Topology is a topology file of NCCL or RCCL: an XML tree, kept whole, so
// that elements and attributes this version does not know survive. See
// nccl/src/graph/xml.cc.
type Topology struct{ Root *Element }

// Element is one element of a topology file.
type Element struct {
	Name     string
	Attrs    []xml.Attr
	Children []*Element
	Comments []string // before the element's end, in order
}

// Attr is an attribute's value, empty where it is missing.
func (e *Element) Attr(name string) string {
	for _, a := range e.Attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// ReadTopology reads a topology file. It returns ErrTopology where the file's
// outermost element is not <system>.
func ReadTopology(r io.Reader) (*Topology, error) {
	data, err := bounded.ReadAll(r, maxTopologyBytes)
	if errors.Is(err, bounded.ErrTooLarge) {
		return nil, fmt.Errorf("%w: %w", ErrTopology, err)
	}
	if err != nil {
		return nil, fmt.Errorf("topology: %w", err)
	}
	d := xml.NewDecoder(bytes.NewReader(plainComments(data)))
	var stack []*Element
	var root *Element
	count := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrTopology, err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			if count++; count > maxTopologyNodes || len(stack) == maxTopologyDepth {
				return nil, fmt.Errorf("%w: more than %d elements or %d levels", ErrTopology, maxTopologyNodes, maxTopologyDepth)
			}
			e := &Element{Name: t.Name.Local, Attrs: t.Copy().Attr}
			switch {
			case len(stack) > 0:
				stack[len(stack)-1].Children = append(stack[len(stack)-1].Children, e)
			case root != nil:
				return nil, fmt.Errorf("%w: more than one outermost element", ErrTopology)
			default:
				root = e
			}
			stack = append(stack, e)
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		case xml.Comment:
			if len(stack) > 0 {
				stack[len(stack)-1].Comments = append(stack[len(stack)-1].Comments, string(t))
			}
		}
	}
	if root == nil || root.Name != "system" {
		return nil, ErrTopology
	}
	return &Topology{root}, nil
}

// plainComments takes the dashes out of comments that are ruled with them,
// as in some of RCCL's files: XML has no "--" within a comment.
func plainComments(data []byte) []byte {
	start, end := []byte("<!--"), []byte("-->")
	for at := 0; ; {
		i := bytes.Index(data[at:], start)
		if i < 0 {
			return data
		}
		at += i + len(start)
		n := bytes.Index(data[at:], end)
		if n < 0 {
			return data
		}
		for j := range n {
			if data[at+j] == '-' {
				data[at+j] = '='
			}
		}
		at += n + len(end)
	}
}

// Write writes the topology back, two blanks a level as NCCL does.
func (t *Topology) Write(w io.Writer) error {
	var b strings.Builder
	t.Root.write(&b, 0)
	_, err := io.WriteString(w, b.String())
	return err
}

func (e *Element) write(b *strings.Builder, depth int) {
	indent := strings.Repeat("  ", depth)
	b.WriteString(indent + "<" + e.Name)
	for _, a := range e.Attrs {
		b.WriteString(" " + a.Name.Local + `="`)
		_ = xml.EscapeText(b, []byte(a.Value)) // a strings.Builder takes all
		b.WriteByte('"')
	}
	if len(e.Children) == 0 && len(e.Comments) == 0 {
		b.WriteString("/>\n")
		return
	}
	b.WriteString(">\n")
	for _, c := range e.Comments {
		b.WriteString(indent + "  <!--" + c + "-->\n")
	}
	for _, c := range e.Children {
		c.write(b, depth+1)
	}
	b.WriteString(indent + "</" + e.Name + ">\n")
}
