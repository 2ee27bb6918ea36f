package node

import (
	"errors"
	"testing"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/install"
	"oscine.dev/oscine/internal/node/upgrade"
	"oscine.dev/oscine/internal/release"
)

// On another Linux there is nothing of ours to install or to erase.
func TestNotOurs(t *testing.T) {
	n := &Node{}
	if _, err := n.Install(t.Context(), "vdb", nil, false, install.Options{}); !errors.Is(err, upgrade.ErrNotHere) {
		t.Errorf("install: got %v", err)
	}
	if err := n.Reset("anna"); !errors.Is(err, errdefs.ErrFailedPrecondition) || !errors.Is(err, upgrade.ErrNotHere) {
		t.Errorf("reset: got %v", err)
	}
}

// Nor where the data partition cannot be mounted, and the texts say that.
func TestWithoutData(t *testing.T) {
	n := &Node{config: Config{Upgrading: Upgrading{Facts: func() release.Facts { return release.Facts{Slot: release.PartitionRootA, Disk: "vda"} }}}}
	if _, err := n.Install(t.Context(), "vdb", nil, false, install.Options{}); !errors.Is(err, upgrade.ErrNoData) {
		t.Errorf("install: got %v", err)
	}
	if err := n.Reset("anna"); !errors.Is(err, upgrade.ErrNoData) {
		t.Errorf("reset: got %v", err)
	}
}
