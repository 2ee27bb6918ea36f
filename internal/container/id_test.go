package container

import (
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/identifiers"

	"oscine.dev/oscine/internal/object"
)

// What a Spec takes as an ID containerd takes too, and an object of every
// length of name has one.
func TestIDsAreThoseOfContainerd(t *testing.T) {
	accepts := func(id string) bool {
		spec := Spec{ID: id, RootFS: "/pack"}
		return spec.fill("/") == nil
	}
	for n := 1; n <= maxID+2; n++ {
		for _, id := range []string{strings.Repeat("n", n), strings.Repeat("a-", n/2) + "b", strings.Repeat("a--", n/3) + "b"} {
			if accepts(id) && identifiers.Validate(id) != nil {
				t.Errorf("%q (%d) is accepted, containerd: %v", id, len(id), identifiers.Validate(id))
			}
		}
	}
	for _, row := range object.Kinds().Stored() {
		for n := 1; n <= object.MaxName; n++ {
			key := object.Key{Kind: row.Kind, Name: strings.Repeat("n", n)}
			if !accepts(key.ID()) {
				t.Errorf("the ID of %s is refused", key)
			}
		}
	}
	if object.MaxID > maxID {
		t.Errorf("identifiers of objects have up to %d characters, containers %d", object.MaxID, maxID)
	}
}
