package explain

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/object"
)

// comments.json holds the comments of the types and fields of internal/object
// as "Type" and "Type.Field"; the tests of this package write it.
//
//go:generate go test -run Comments|Reference -update
//go:embed comments.json
var commentsJSON []byte

// Field is one field of a manifest, or a kind as a whole.
type Field struct {
	Name     string // as it is written, "" for a kind
	Path     string // from the kind, such as spec.ports[].port
	Type     string // in the words of a manifest, such as "list of text"
	Doc      string // the comment of the field, else that of its type
	Required bool
	Default  string // "" for none
	Bounds   string // what its check demands, such as "from 1 to 65535"
	Fields   []*Field
}

// Kind returns the tree of a kind's fields.
func Kind(kinds object.Table, row *object.Definition) (*Field, error) {
	comments := map[string]string{}
	if err := json.Unmarshal(commentsJSON, &comments); err != nil {
		return nil, fmt.Errorf("read the comments of the types: %w", err)
	}
	return describe(kinds, row, comments), nil
}

func describe(kinds object.Table, row *object.Definition, comments map[string]string) *Field {
	obj := row.New()
	fill(reflect.ValueOf(obj).Elem())
	defaults := row.New()
	fill(reflect.ValueOf(defaults).Elem())
	defaults.SetDefaults()
	d := &describer{comments: comments, defaults: reflect.ValueOf(defaults).Elem(), bounds: func(v reflect.Value, path string) string { return bounds(kinds, obj, v, path) }}
	root := &Field{Type: "mapping", Doc: comments[string(row.Kind)]}
	root.Fields = d.fields(reflect.ValueOf(obj).Elem(), d.defaults, "")
	return root
}

// Find returns the field that the names lead to from f. A first name that is
// no field of f is looked for in its spec too.
func (f *Field) Find(names []string) (*Field, error) {
	at := f
	for i, name := range names {
		next := at.child(name)
		if spec := f.child("spec"); next == nil && i == 0 && spec != nil {
			next = spec.child(name)
		}
		if next == nil {
			return nil, fmt.Errorf("there is no field %q%s", name, at.offer())
		}
		at = next
	}
	return at, nil
}

func (f *Field) child(name string) *Field {
	i := slices.IndexFunc(f.Fields, func(c *Field) bool { return strings.EqualFold(c.Name, strings.TrimSuffix(name, "[]")) })
	if i < 0 {
		return nil
	}
	return f.Fields[i]
}

func (f *Field) offer() string {
	if len(f.Fields) == 0 {
		return fmt.Sprintf(": %s is %s and has no fields", f.Path, f.Type)
	}
	where := ""
	if f.Path != "" {
		where = " of " + f.Path
	}
	var names []string
	for _, c := range f.Fields {
		names = append(names, c.Name)
	}
	return fmt.Sprintf(": the fields%s are %s", where, strings.Join(names, ", "))
}

// Facts returns the type of the field and all that limits its value, such as
// "whole number, required, from 1 to 65535".
func (f *Field) Facts() string {
	facts := []string{f.Type}
	if f.Required {
		facts = append(facts, "required")
	}
	if f.Default != "" {
		facts = append(facts, "default "+f.Default)
	}
	switch {
	case f.Bounds != "" && strings.HasPrefix(f.Type, "list"):
		facts = append(facts, "each "+f.Bounds)
	case f.Bounds != "":
		facts = append(facts, f.Bounds)
	}
	return strings.Join(facts, ", ")
}

// Walk calls each for all fields below f, parents first.
func (f *Field) Walk(each func(*Field)) {
	for _, c := range f.Fields {
		each(c)
		c.Walk(each)
	}
}
