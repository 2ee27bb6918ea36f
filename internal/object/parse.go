package object

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	"oscine.dev/oscine/internal/bounded"
)

// Bounds on what is read, so that a hostile file costs little.
const (
	MaxBytes   = 1 << 20 // of one manifest stream
	MaxObjects = 256     // documents in one stream
	maxDepth   = 32      // nesting of one document
	maxNodes   = 50_000  // YAML nodes of one document
	maxErrors  = 50      // mistakes reported of one stream
	maxQuoted  = 128     // bytes of a value that an error repeats
	maxReason  = 2048    // bytes of one mistake
)

// Parse reads a stream of YAML or JSON documents of at most MaxBytes.
// Where anything is wrong the error is an Errors with every mistake of every
// document, and no object is returned.
func (t Table) Parse(r io.Reader) ([]Object, error) {
	raw, err := bounded.ReadAll(r, MaxBytes)
	if err != nil && !errors.Is(err, bounded.ErrTooLarge) {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if err != nil {
		return nil, Errors{{Reason: fmt.Sprintf("the manifest is larger than %d bytes; split it", MaxBytes)}}
	}
	c := &Checker{kinds: t}
	var objects []Object
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	seen := map[Key]bool{}
	for n := 0; ; n++ {
		var doc yaml.Node
		err := decodeDocument(dec, &doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			c.add(0, "", "not YAML: %v", withoutText(err))
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
		key := obj.Key()
		if key.Name != "" && seen[key] {
			c.add(doc.Content[0].Line, "metadata.name", "%s appears twice in this stream", key)
		}
		seen[key] = true
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

func (c *Checker) object(root *yaml.Node) Object {
	c.lines, c.zeros = map[string]int{}, map[string]bool{}
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
		c.add(lineOf(root, "apiVersion"), "apiVersion", "must be %q, got %s", APIVersion, quote(version))
	}
	row, ok := c.kinds.Find(Kind(kind))
	if !ok {
		c.add(lineOf(root, "kind"), "kind", "must be %s, got %s", c.kinds.Names(), quote(kind))
		return nil
	}
	c.confidential = row.Confidential
	obj := row.New()
	root = withoutStatus(root)
	before := len(c.errs)
	c.decode(root, reflect.ValueOf(obj).Elem(), "")
	if err := CheckName(obj.Key().Name); err != nil {
		c.Bad("metadata.name", "%v", err)
	}
	if len(c.errs) == before {
		obj.SetDefaults()
	}
	obj.Check(c)
	return obj
}

// lineOf is the line of a field, or that of the mapping which has none of the name.
func lineOf(root *yaml.Node, field string) int {
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == field {
			return root.Content[i].Line
		}
	}
	return root.Line
}

// withoutStatus leaves out what a node adds to an object when it shows it, so
// that what was got can be applied.
func withoutStatus(root *yaml.Node) *yaml.Node {
	spec := *root
	spec.Content = nil
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value != "status" {
			spec.Content = append(spec.Content, root.Content[i], root.Content[i+1])
		}
	}
	return &spec
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

// describe says what was found in the place of something else, without its
// value where that may be secret.
func (c *Checker) describe(n *yaml.Node) string {
	if c.confidential && n.Kind == yaml.ScalarNode {
		return "a single value of another kind"
	}
	return describe(n)
}

// withoutText leaves out of a mistake of YAML what was written: it may be a
// value that begins with an asterisk, in a document of any kind.
func withoutText(err error) error {
	if before, _, ok := strings.Cut(err.Error(), "unknown anchor"); ok {
		return fmt.Errorf("%san alias (*NAME) has no anchor (&NAME): put a value that begins with * in quotes", before)
	}
	return err
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
			return "the text " + quote(n.Value)
		}
		return shown(n.Value)
	}
	return "an alias"
}
