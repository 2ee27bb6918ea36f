package cli

import (
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/object"
)

func TestRunNamesVolumes(t *testing.T) {
	o := runOptions{volumes: []string{"shop-data:/data", "models:/m:ro", "logs:/l:rw"}}
	text, err := o.manifest("docker.io/library/alpine:3", nil)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := object.Kinds().Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []object.Volume{{Name: "shop-data", Path: "/data"}, {Name: "models", Path: "/m", ReadOnly: true}, {Name: "logs", Path: "/l"}}
	if got := objects[0].(*object.Workload).Spec.Volumes; !slices.Equal(got, want) {
		t.Errorf("volumes %+v, want %+v", got, want)
	}
	for text, want := range map[string]string{
		"data": "write VOLUME:PATH", "data:/x:xx": "write VOLUME:PATH", "./data:/x": "not a folder of this computer", "/srv:/x": "not a folder of this computer", "data:x": "absolute path",
	} {
		o := runOptions{volumes: []string{text}}
		if _, err := o.manifest("x", nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("-v %s: %v, want %q", text, err, want)
		}
	}
}
