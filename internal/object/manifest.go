package object

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// APIVersion is the only apiVersion that this release reads and writes.
const APIVersion = "oscine.dev/v1"

// Bounds on what is read, so that a hostile file costs little.
const (
	MaxBytes   = 1 << 20 // of one manifest stream
	MaxObjects = 256     // documents in one stream
	maxDepth   = 32      // nesting of one document
	maxNodes   = 50_000  // YAML nodes of one document
	maxErrors  = 50      // mistakes reported of one stream
)

// Kind names an object type.
type Kind string

// The kinds that a node accepts.
const (
	KindMachine  Kind = "Machine"
	KindWorkload Kind = "Workload"
	KindModel    Kind = "Model"
)

// Metadata names an object. A name is a DNS label (RFC 1123): at most 63
// lower-case letters, digits and inner hyphens.
type Metadata struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Object is a decoded, defaulted and valid manifest: *Machine, *Workload or
// *Model.
type Object interface {
	ObjectKind() Kind
	ObjectName() string
	// check appends the mistakes that types alone don't catch.
	check(*checker)
	// fill replaces zero values by their documented defaults.
	fill()
}

type header struct {
	APIVersion string   `json:"apiVersion"`
	Kind       Kind     `json:"kind"`
	Metadata   Metadata `json:"metadata"`
}

// ObjectKind returns the object's kind.
func (h *header) ObjectKind() Kind { return h.Kind }

// ObjectName returns the object's name, unique within its kind on a node.
func (h *header) ObjectName() string { return h.Metadata.Name }

// FieldError is one mistake in a manifest.
type FieldError struct {
	Line   int    // 1-based line in the stream, 0 where unknown
	Path   string // such as "spec.resources.cpu"
	Reason string // what is wrong and what would be right
}

// Error prints "line 7: spec.resources.cpu: …".
func (e *FieldError) Error() string {
	var b strings.Builder
	if e.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", e.Line)
	}
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Reason)
	return b.String()
}

// Errors is every mistake found in one stream, in the order of the text.
type Errors []*FieldError

// InvalidParameter makes mistakes in manifests invalid arguments to
// github.com/containerd/errdefs.
func (e Errors) InvalidParameter() {}

// Error lists the mistakes, one a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, fe := range e {
		lines[i] = fe.Error()
	}
	return strings.Join(lines, "\n")
}

// Parse reads a stream of YAML or JSON documents of at most MaxBytes.
// Where anything is wrong the error is an Errors with every mistake of every
// document, and no object is returned.
func Parse(r io.Reader) ([]Object, error) {
	raw, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if len(raw) > MaxBytes {
		return nil, Errors{{Reason: fmt.Sprintf("the manifest is larger than %d bytes; split it", MaxBytes)}}
	}
	c := &checker{}
	var objects []Object
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	seen := map[string]bool{}
	for n := 0; ; n++ {
		var doc yaml.Node
		err := decodeDocument(dec, &doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			c.add(0, "", "not YAML: %v", err)
			break
		}
		if n >= MaxObjects {
			c.add(doc.Line, "", "more than %d documents in one stream; split it", MaxObjects)
			break
		}
		if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
			continue // an empty document, as after a trailing "---"
		}
		obj := c.object(doc.Content[0])
		if obj == nil {
			continue
		}
		id := string(obj.ObjectKind()) + "/" + obj.ObjectName()
		if obj.ObjectName() != "" && seen[id] {
			c.add(doc.Content[0].Line, "metadata.name", "%s appears twice in this stream", id)
		}
		seen[id] = true
		objects = append(objects, obj)
	}
	if len(c.errs) > 0 {
		return nil, c.errs
	}
	if len(objects) == 0 {
		return nil, Errors{{Reason: "the manifest holds no object; it needs apiVersion, kind, metadata and spec"}}
	}
	return objects, nil
}

// decodeDocument turns a panic of the YAML library, which some malformed
// inputs provoke, into an error.
func decodeDocument(dec *yaml.Decoder, doc *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("malformed document: %v", r)
		}
	}()
	return dec.Decode(doc)
}

// checker collects mistakes.
type checker struct {
	errs  Errors
	lines map[string]int // path → line of the document at hand
}

func (c *checker) add(line int, path, format string, args ...any) {
	if len(c.errs) < maxErrors {
		c.errs = append(c.errs, &FieldError{Line: line, Path: path, Reason: fmt.Sprintf(format, args...)})
	}
}

// bad reports a mistake at a path of the document at hand.
func (c *checker) bad(path, format string, args ...any) {
	line, at := 0, path
	for line == 0 && at != "" {
		line = c.lines[at]
		cut := strings.LastIndexAny(at, ".[")
		at = at[:max(cut, 0)]
	}
	c.add(line, path, format, args...)
}

func (c *checker) object(root *yaml.Node) Object {
	c.lines = map[string]int{}
	if root.Kind != yaml.MappingNode {
		c.add(root.Line, "", "a manifest is a mapping with apiVersion, kind, metadata and spec, not %s", describe(root))
		return nil
	}
	if n := countNodes(root, 0); n > maxNodes {
		c.add(root.Line, "", "the document is too large or nested too deeply")
		return nil
	}
	version, kind := scalarField(root, "apiVersion"), scalarField(root, "kind")
	if version != APIVersion {
		c.add(root.Line, "apiVersion", "must be %q, got %q", APIVersion, version)
	}
	var obj Object
	switch Kind(kind) {
	case KindMachine:
		obj = &Machine{}
	case KindWorkload:
		obj = &Workload{}
	case KindModel:
		obj = &Model{}
	default:
		c.add(root.Line, "kind", "must be Machine, Workload or Model, got %q", kind)
		return nil
	}
	before := len(c.errs)
	c.decode(root, reflect.ValueOf(obj).Elem(), "")
	if err := CheckName(obj.ObjectName()); err != nil {
		c.bad("metadata.name", "%v", err)
	}
	if len(c.errs) == before {
		obj.fill()
	}
	obj.check(c)
	return obj
}

var nameRE = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

func validName(s string) bool { return nameRE.MatchString(s) }

// CheckName refuses what is not a DNS label.
func CheckName(name string) error {
	if !validName(name) {
		return fmt.Errorf("must be 1 to 63 lower-case letters, digits and inner hyphens, got %q", name)
	}
	return nil
}

func scalarField(m *yaml.Node, key string) string {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key && m.Content[i+1].Kind == yaml.ScalarNode {
			return m.Content[i+1].Value
		}
	}
	return ""
}

// countNodes bounds a document; aliases count as what they repeat, so that
// nested aliases cannot blow up.
func countNodes(n *yaml.Node, depth int) int {
	if depth > maxDepth {
		return maxNodes + 1
	}
	total := 1
	if n.Kind == yaml.AliasNode {
		return total + countNodes(n.Alias, depth+1)
	}
	for _, child := range n.Content {
		if total += countNodes(child, depth+1); total > maxNodes {
			break
		}
	}
	return total
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		switch n.Tag {
		case "!!null":
			return "nothing"
		case "!!str":
			return fmt.Sprintf("the text %q", n.Value)
		}
		return n.Value
	}
	return "an alias"
}
