package object

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// shortForm is a mapping that may be written as one text.
type shortForm interface{ setText(text string) }

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// decode stores a YAML node in a Go value, field names by their json tags,
// and reports every unknown field, duplicate key and wrong type on the way.
func (c *Checker) decode(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if _, ok := c.lines[path]; !ok {
		c.lines[path] = n.Line
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // an empty field is an absent field
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		c.decode(n, v.Elem(), path)
		return
	}
	if v.CanAddr() && v.Addr().Type().Implements(textUnmarshaler) {
		c.decodeText(n, v, path)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if short, ok := v.Addr().Interface().(shortForm); ok && n.Kind == yaml.ScalarNode {
			text := reflect.New(reflect.TypeFor[string]()).Elem()
			c.decodeScalar(n, text, path)
			short.setText(text.String())
			return
		}
		c.decodeStruct(n, v, path)
	case reflect.Map:
		c.decodeMap(n, v, path)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			c.Bad(path, "must be a list, got %s", c.describe(n))
			return
		}
		list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
		for i, item := range n.Content {
			c.decode(item, list.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
		v.Set(list)
	default:
		c.decodeScalar(n, v, path)
	}
}

func (c *Checker) decodeText(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.ScalarNode {
		c.Bad(path, "must be a single value, got %s", c.describe(n))
		return
	}
	if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.Value)); err != nil {
		c.Bad(path, "%v", err)
		return
	}
	c.zeros[path] = v.IsZero()
}

func (c *Checker) decodeStruct(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		c.Bad(path, "must be a mapping, got %s", c.describe(n))
		return
	}
	fields := fieldsByName(v)
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := join(path, key.Value)
		c.lines[at] = key.Line
		switch field, ok := fields[key.Value]; {
		case seen[key.Value]:
			c.Bad(at, "is given twice")
		case !ok:
			c.Bad(at, "unknown field%s", suggest(key.Value, fields))
		default:
			c.decode(value, field, at)
		}
		seen[key.Value] = true
	}
}

func (c *Checker) decodeMap(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		c.Bad(path, "must be a mapping, got %s", c.describe(n))
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := join(path, key.Value)
		k := reflect.New(v.Type().Key()).Elem()
		c.decode(key, k, at)
		if v.MapIndex(k).IsValid() {
			c.Bad(at, "is given twice")
			continue
		}
		e := reflect.New(v.Type().Elem()).Elem()
		c.decode(value, e, at)
		v.SetMapIndex(k, e)
	}
}

func (c *Checker) decodeScalar(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.ScalarNode {
		c.Bad(path, "must be %s, got %s", scalarName(v.Kind()), c.describe(n))
		return
	}
	switch v.Kind() {
	case reflect.String:
		if n.Tag != "!!str" && n.Tag != "!!int" && n.Tag != "!!float" {
			c.Bad(path, "must be text, got %s; put it in quotes", c.describe(n))
			return
		}
		v.SetString(n.Value)
	case reflect.Bool:
		if n.Tag != "!!bool" {
			c.Bad(path, "must be true or false, got %s", c.describe(n))
			return
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
	case reflect.Int, reflect.Int32, reflect.Int64:
		i, err := strconv.ParseInt(n.Value, 0, v.Type().Bits())
		if n.Tag != "!!int" || err != nil {
			c.Bad(path, "must be a whole number of at most %d bits, got %s", v.Type().Bits(), c.describe(n))
			return
		}
		v.SetInt(i)
		c.zeros[path] = i == 0
	case reflect.Float64:
		f, err := strconv.ParseFloat(n.Value, 64)
		if err != nil || (n.Tag != "!!float" && n.Tag != "!!int") {
			c.Bad(path, "must be a number, got %s", c.describe(n))
			return
		}
		v.SetFloat(f)
	default:
		c.Bad(path, "cannot hold %s", c.describe(n))
	}
}

func scalarName(k reflect.Kind) string {
	switch k {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	}
	return "a number"
}

func fieldsByName(v reflect.Value) map[string]reflect.Value {
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			for name, inner := range fieldsByName(v.Field(i)) {
				fields[name] = inner
			}
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" && name != "-" {
			fields[name] = v.Field(i)
		}
	}
	return fields
}

// suggest names the known field nearest to a mistyped one, or all of a few.
func suggest(got string, fields map[string]reflect.Value) string {
	best, bestDistance := "", 3
	for name := range fields {
		d := EditDistance(strings.ToLower(got), strings.ToLower(name))
		if d < bestDistance || (d == bestDistance && best != "" && name < best) {
			best, bestDistance = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// EditDistance is how many bytes have to be put in, left out or replaced to make b of a;
// 64 for texts longer than that.
func EditDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
