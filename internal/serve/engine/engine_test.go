package engine_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/serve/engine"
)

// docs/packs.md names the options of each engine that the engine takes.
func TestOptionsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../docs/packs.md")
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile("`([a-z]+)`")
	for name, e := range engine.All() {
		var row []string
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "| `"+name+"` |") {
				row = strings.Split(line, "|")
			}
		}
		if len(row) < 4 {
			t.Errorf("%s has no row", name)
			continue
		}
		var documented []string
		before, _, _ := strings.Cut(strings.ReplaceAll(row[3], "`: ", "`:"), ":")
		for _, m := range quoted.FindAllStringSubmatch(before, -1) {
			documented = append(documented, m[1])
		}
		slices.Sort(documented)
		if known := e.Options(); !slices.Equal(known, documented) {
			t.Errorf("%s knows the options %q, docs/packs.md names %q", name, known, documented)
		}
	}
}
