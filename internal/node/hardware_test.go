package node

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/place"
)

// A refusal names the node, not the computer that it runs on.
func TestRefusalNamesTheNode(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	packs, err := pack.OpenStore(filepath.Join(t.TempDir(), "packs"), filepath.Join(t.TempDir(), "mounts"), nil)
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{log: log, machine: &object.Machine{}, drivers: allocate.NewDrivers(packs, log)}
	n.machine.Metadata.Name = "edge1"
	if err := n.openPlacer(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = n.placer.Lend(t.Context(), place.Request{Name: "x", Class: place.Interactive, MilliCPU: 1 << 40})
	if err == nil || !strings.Contains(err.Error(), "does not fit edge1") {
		t.Errorf("got %v", err)
	}
}
