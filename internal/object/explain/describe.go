package explain

import (
	"encoding"
	"reflect"
	"strings"

	"oscine.dev/oscine/internal/object"
)

// describer turns a Go value, filled so that it has one of everything, into
// fields.
type describer struct {
	comments map[string]string
	defaults reflect.Value
	bounds   func(v reflect.Value, path string) string
}

// fields describes a struct and beside it the same struct with its defaults
// set.
func (d *describer) fields(v, defaults reflect.Value, path string) []*Field {
	var fields []*Field
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			fields = append(fields, d.fields(v.Field(i), defaults.Field(i), path)...)
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		at := name
		if path != "" {
			at = path + "." + name
		}
		field := &Field{Name: name, Path: at, Type: typeName(f.Type), Required: options == ""}
		field.Doc = d.comments[v.Type().Name()+"."+f.Name]
		inner, innerDefaults, innerPath := element(v.Field(i), defaults.Field(i), at)
		if isStruct(inner) {
			field.Fields = d.fields(inner, innerDefaults, innerPath)
			if typeDoc := d.comments[inner.Type().Name()]; field.Doc == "" {
				field.Doc = typeDoc
			}
		} else {
			field.Default = defaultOf(innerDefaults)
			field.Bounds = d.bounds(inner, innerPath)
		}
		fields = append(fields, field)
	}
	return fields
}

// element goes through pointers and lists to what they hold.
func element(v, defaults reflect.Value, path string) (inner, innerDefaults reflect.Value, innerPath string) {
	for {
		switch {
		case v.Kind() == reflect.Pointer:
			v, defaults = v.Elem(), defaults.Elem()
		case v.Kind() == reflect.Slice && !isText(v):
			v, defaults, path = v.Index(0), defaults.Index(0), path+"[]"
		default:
			return v, defaults, path
		}
	}
}

func isText(v reflect.Value) bool {
	return v.CanAddr() && v.Addr().Type().Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

func isStruct(v reflect.Value) bool { return v.Kind() == reflect.Struct && !isText(v) }

// fill gives every pointer and list in v one zero element.
func fill(v reflect.Value) {
	switch {
	case !v.CanSet() || isText(v): // not exported, or written as one value
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case isStruct(v):
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	}
}

func defaultOf(v reflect.Value) string {
	if v.IsZero() || v.Kind() == reflect.Map {
		return ""
	}
	switch x := v.Interface().(type) {
	case object.Quantity:
		return x.String()
	case object.Duration:
		return short(x.String())
	}
	return shown(v)
}

func typeName(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[object.Quantity]():
		return "quantity"
	case reflect.TypeFor[object.Duration]():
		return "duration"
	case reflect.TypeFor[object.Base64]():
		return "base64"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.Slice:
		return "list of " + plural(typeName(t.Elem()))
	case reflect.Map:
		return "mapping of " + typeName(t.Key()) + " to " + typeName(t.Elem())
	case reflect.Struct:
		return "mapping"
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "number"
	}
	return "whole number"
}

func plural(name string) string {
	if name == "text" {
		return "texts"
	}
	return name + "s"
}
