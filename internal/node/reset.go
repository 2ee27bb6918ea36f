package node

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update/slot"
)

// Reasons to refuse a reset.
var (
	errResetElsewhere = errdefs.ErrFailedPrecondition.WithMessage("this node runs on another Linux: stop it and delete its state folder there")
	errResetUpgrading = errdefs.ErrFailedPrecondition.WithMessage("an upgrade is under way: wait for its end, or cancel it (oscine upgrade cancel)")
)

// Reset has the machine erase its data partition when it starts next, and restarts
// it. by is the name of who asked for it.
func (n *Node) Reset(by string) error {
	if n.bootDisk == nil {
		return errResetElsewhere
	}
	if n.upgrades.Status().Current != nil {
		return errResetUpgrading
	}
	text := "asked for by " + by + "\n"
	// The mark on the ESP first: without it the other one says nothing.
	err := n.bootDisk.ESP(func(esp slot.ESP) error {
		if err := esp.Create(release.ESPReset, strings.NewReader(text), int64(len(text))); err != nil {
			return err
		}
		return esp.Flush()
	})
	if err == nil {
		err = durable.WriteFile(filepath.Join(n.config.StateDir, release.ResetMark), []byte(text), 0o600)
	}
	if err != nil {
		return fmt.Errorf("mark the data partition to be erased: %w", err)
	}
	n.log.Warn("reset: the next boot erases the data partition", "by", by)
	return n.Reboot(false)
}
