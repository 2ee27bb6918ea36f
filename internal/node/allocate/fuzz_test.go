package allocate

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/place"
)

// FuzzAdopt takes up what might be stored as a placement: the daemon comes up
// with it, and the machine has no more than it had.
func FuzzAdopt(f *testing.F) {
	objects, err := object.Kinds().Parse(strings.NewReader("apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: w}\nspec: {image: x}\n"))
	if err != nil {
		f.Fatal(err)
	}
	id := objects[0].Key().ID()
	request, err := json.Marshal(place.Placement{Request: place.Request{Name: id, MilliCPU: 500}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(request)
	f.Add([]byte(strings.ReplaceAll(string(request), "500", "-500")))
	f.Add([]byte(`{"Request":{"Name":"` + id + `"},"CPUs":[-1,99999],"Memory":[{"Node":7,"Bytes":-1}],"Devices":[{"ID":"x"}]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, stored []byte) {
		p, err := NewPlacer(online(0, 1, 2, 3), "test", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		p.Adopt(objects[0], json.RawMessage(stored))
	})
}

// FuzzSharesFile opens what might be in the file of divided devices.
func FuzzSharesFile(f *testing.F) {
	f.Add([]byte(`[{"object":"workload-w","address":"0000:01:00.0","class":"batch","grant":{"Profile":"1g","Start":-1},"gone":true}]`))
	f.Add([]byte(`[{}]`))
	f.Add([]byte(`[null]`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, sharesFile), text, 0o600); err != nil {
			t.Fatal(err)
		}
		machine := online(0, 1)
		s := &Shares{
			dir: dir, log: slog.New(slog.DiscardHandler), machine: func() *hardware.Machine { return machine },
			refresh: func(context.Context) {}, sharer: func(string) *hardware.Driver { return nil },
		}
		if err := s.load(); err != nil {
			t.Fatal(err)
		}
		s.Sweep(t.Context(), func(string) bool { return false })
	})
}
