package object

import (
	"strings"
	"testing"
)

// Models share the machine unless they are told otherwise.
func TestModelsShareByDefault(t *testing.T) {
	for class, want := range map[string]string{"": "100m", "interactive": "100m", "batch": "100m", "realtime": "1"} {
		text := "apiVersion: oscine.dev/v1\nkind: Model\nmetadata: {name: m}\nspec: {class: '" + class + "', source: 'sha256:" + strings.Repeat("0", 64) + "'}\n"
		objects, err := Kinds().Parse(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := objects[0].(*Model).Spec.Resources.CPU.String(); got != want {
			t.Errorf("class %q: cpu %s, want %s", class, got, want)
		}
	}
}
