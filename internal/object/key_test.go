package object

import (
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/identifiers"
)

// Names of every length give identifiers that the container runtime and the
// kernel take, and from which the object is found again.
func TestEveryNameGivesAFittingID(t *testing.T) {
	const hostNameMax = 64 // bytes, of the kernel
	longest := Definition{Kind: Kind("L" + strings.Repeat("o", maxKind-1)), New: func() Object { return &Workload{} }}
	kinds := append(Kinds(), longest)
	seen := map[string]Key{}
	for _, row := range kinds.Stored() {
		if !kindRE.MatchString(string(row.Kind)) {
			t.Errorf("kind %q does not match %v", row.Kind, kindRE)
		}
		for n := 1; n <= MaxName; n++ {
			for _, name := range []string{strings.Repeat("n", n), strings.Repeat("0", n), strings.Repeat("a-", n/2) + "b", strings.Repeat("a--", n/3) + "b"} {
				key := Key{row.Kind, name}
				if CheckName(name) != nil {
					continue // too long, or refused: then it need not start
				}
				id := key.ID()
				if err := identifiers.Validate(id); err != nil {
					t.Errorf("%s: %v", key, err)
				}
				if len(id) > MaxID || len(name) > hostNameMax {
					t.Errorf("%s: an ID of %d and a host name of %d bytes", key, len(id), len(name))
				}
				if other, taken := seen[id]; taken && other != key {
					t.Errorf("%s and %s have the ID %s", key, other, id)
				}
				seen[id] = key
				if got, err := kinds.ParseID(id); err != nil || got != key {
					t.Errorf("ParseID(%q): got %v, %v, want %v", id, got, err, key)
				}
				if got, err := kinds.ParseKey(key.String()); err != nil || got != key {
					t.Errorf("ParseKey(%q): got %v, %v", key, got, err)
				}
			}
		}
	}
}

func TestKindsAreTold(t *testing.T) {
	words := map[string]Kind{}
	for _, row := range Kinds() {
		for _, word := range append([]string{row.Word(), row.plural(), strings.ToUpper(row.Word())}, row.Aliases...) {
			if other, taken := words[word]; taken && other != row.Kind {
				t.Errorf("%q means %s and %s", word, other, row.Kind)
			}
			words[word] = row.Kind
			if got, ok := Kinds().ByWord(word); !ok || got.Kind != row.Kind {
				t.Errorf("ByWord(%q): got %v, want %s", word, got, row.Kind)
			}
		}
	}
	for _, text := range []string{"", "web", "workload", "workload-", "workload-A", "Workload-web", "machine-node", "pod-web", "workload--web"} {
		if key, err := Kinds().ParseID(text); err == nil {
			t.Errorf("ParseID(%q): got %v, want an error", text, key)
		}
	}
	for _, text := range []string{"", "web", "workload/web", "Machine/node", "Pod/web", "Workload/", "Workload/A", "Workload/a/b"} {
		if key, err := Kinds().ParseKey(text); err == nil {
			t.Errorf("ParseKey(%q): got %v, want an error", text, key)
		}
	}
}
