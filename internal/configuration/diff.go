package configuration

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"oscine.dev/oscine/internal/object"
)

// Change is one field that differs. A value is JSON; "" stands for an absent field.
type Change struct {
	Path string `json:"path"` // such as spec.network.interfaces[0].mtu
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

// secret are the fields whose values are never told.
var secret = []string{"spec.api.key", "spec.api.joinToken"}

const hidden = "(hidden)"

// Diff lists the fields in which two Machines differ, in order of their paths.
func Diff(from, to *object.Machine) []Change {
	was, is := flatten(from), flatten(to)
	paths := maps.Clone(was)
	maps.Copy(paths, is)
	var changes []Change
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if was[path] == is[path] {
			continue
		}
		c := Change{Path: path, From: was[path], To: is[path]}
		if slices.Contains(secret, path) {
			c.From, c.To = hide(c.From), hide(c.To)
		}
		changes = append(changes, c)
	}
	return changes
}

func hide(value string) string {
	if value == "" {
		return ""
	}
	return hidden
}

// flatten maps each field that is no structure to its value in JSON.
func flatten(m *object.Machine) map[string]string {
	raw, err := json.Marshal(m)
	if err != nil {
		return nil // no Machine that was read has a field without a JSON form
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return nil
	}
	fields := map[string]string{}
	flattenInto(fields, "", tree)
	return fields
}

func flattenInto(fields map[string]string, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			at := name
			if path != "" {
				at = path + "." + name
			}
			flattenInto(fields, at, value)
		}
	case []any:
		for i, value := range v {
			flattenInto(fields, fmt.Sprintf("%s[%d]", path, i), value)
		}
	default:
		raw, _ := json.Marshal(v) // came out of JSON
		fields[path] = string(raw)
	}
}

// Redacted is a copy of a Machine without its secrets, for readers.
func Redacted(m *object.Machine) *object.Machine {
	c := *m
	c.Spec.API.Key, c.Spec.API.JoinToken = "", ""
	return &c
}
