package node

import (
	"errors"
	"testing"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/install"
)

// On another Linux there is nothing of ours to install or to erase.
func TestNotOurs(t *testing.T) {
	n := &Node{}
	if _, err := n.Install(t.Context(), "vdb", nil, false, install.Options{}); !errors.Is(err, ErrNotOurs) {
		t.Errorf("install: got %v", err)
	}
	if err := n.Reset("anna"); !errors.Is(err, errdefs.ErrFailedPrecondition) || !errors.Is(err, errResetElsewhere) {
		t.Errorf("reset: got %v", err)
	}
}
