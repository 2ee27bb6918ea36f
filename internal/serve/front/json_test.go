package front

import (
	"encoding/json"
	"fmt"
	"testing"
)

// FuzzMembers walks JSON as encoding/json reads it.
func FuzzMembers(f *testing.F) {
	for _, text := range []string{`{"a":[1,"]",{"b":"\\\""}], "b" : null,"\u0061":-1e3 }`, ` [ 1 , [2,[]],"x,]",{} ]`, `{}`, `[]`, `7`, `{"a":{"b":1}`, `{"b64":"x}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		members, elements := map[string]string{}, []string{}
		err := Members(text, func(name string, value []byte) error {
			members[name] = string(value)
			return nil
		})
		_ = Elements(text, func(value []byte) error {
			elements = append(elements, string(value))
			return nil
		})
		var (
			object map[string]json.RawMessage
			list   []json.RawMessage
		)
		if json.Unmarshal(text, &object) == nil && (err != nil || fmt.Sprintf("%s", object) != fmt.Sprintf("%s", members) || CheckObject(text) != nil) {
			t.Errorf("%s: got %q, %v", text, members, err)
		}
		if json.Unmarshal(text, &list) == nil && fmt.Sprintf("%s", list) != fmt.Sprintf("%s", elements) {
			t.Errorf("%s: got %q", text, elements)
		}
	})
}

// The generic decoder would make tens of bytes of each one of such a body.
func TestMembersKeepNothing(t *testing.T) {
	text := []byte(`{"model":"m","x":[`)
	for range 100_000 {
		text = append(text, `{},`...)
	}
	text = append(text, `{}]}`...)
	got := testing.AllocsPerRun(1, func() {
		if err := CheckObject(text); err != nil {
			t.Error(err)
		}
		_ = Members(text, func(string, []byte) error { return nil })
	})
	if got > 100 {
		t.Errorf("%v allocations", got)
	}
}
