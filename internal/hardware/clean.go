package hardware

import (
	"reflect"

	"oscine.dev/oscine/internal/printable"
)

// clean makes every text of a value printable, and every list that is nil an
// empty one where it would be null in the document. What firmware, devices and
// peers name reaches terminals, drawings and logs from here.
func clean(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		if text := v.String(); v.CanSet() {
			if shown := printable.Text(text); shown != text {
				v.SetString(shown)
			}
		}
	case reflect.Pointer, reflect.Interface:
		if v.Kind() == reflect.Pointer && !v.IsNil() {
			clean(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				clean(v.Field(i))
			}
		}
	case reflect.Slice:
		if k := v.Type().Elem().Kind(); k == reflect.String || k == reflect.Struct || k == reflect.Pointer {
			for i := range v.Len() {
				clean(v.Index(i))
			}
		}
	case reflect.Map:
		cleanMap(v)
	}
}

// cleanMap replaces values: those of a map cannot be changed in place. Keys are
// IDs, addresses and names of attributes, which the readers check.
func cleanMap(v reflect.Value) {
	for _, key := range v.MapKeys() {
		old := v.MapIndex(key)
		if old.Kind() == reflect.Interface {
			if text, ok := old.Interface().(string); ok {
				v.SetMapIndex(key, reflect.ValueOf(printable.Text(text)))
			}
			continue
		}
		value := reflect.New(old.Type()).Elem()
		value.Set(old)
		clean(value)
		v.SetMapIndex(key, value)
	}
}

// tidy makes a map fit to print or encode.
func (m *Machine) tidy() *Machine {
	clean(reflect.ValueOf(m))
	if m.CPUs == nil {
		m.CPUs = []CPU{}
	}
	if m.Packages == nil {
		m.Packages = []Package{}
	}
	if m.Cores == nil {
		m.Cores = []Core{}
	}
	if m.Caches == nil {
		m.Caches = []Cache{}
	}
	if m.Nodes == nil {
		m.Nodes = []Node{}
	}
	return m
}
