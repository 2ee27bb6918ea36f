package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/node/upgrade"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update/slot"
)

// errResetUpgrading refuses a reset.
var errResetUpgrading = errdefs.ErrFailedPrecondition.WithMessage("an upgrade is under way: wait for its end, or cancel it (oscine upgrade cancel)")

// Reset has the machine erase its data partition when it starts next, and restarts
// it. by is the name of who asked for it.
func (n *Node) Reset(by string) error {
	if n.slots == nil {
		return upgrade.NotHere(n.config.Upgrading.Facts, "stop it and delete its state folder there", "put an empty file oscine/reset on the ESP with another computer, and restart: that erases it")
	}
	if n.upgrades.Status().Current != nil {
		return errResetUpgrading
	}
	n.resetting.Lock()
	defer n.resetting.Unlock()
	text := "asked for by " + by + "\n"
	// The mark on the ESP first: without it the other one says nothing.
	err := n.slots.ESP(func(esp slot.ESP) error {
		if err := esp.Create(release.ESPReset, strings.NewReader(text), int64(len(text))); err != nil {
			return err
		}
		return esp.Flush()
	})
	if err == nil {
		err = durable.WriteFile(n.resetMark(), []byte(text), 0o600)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("mark the data partition to be erased: %w", err), n.forgetReset())
	}
	n.log.Warn("reset: the next boot erases the data partition", "by", by)
	if err := n.Reboot(false); err != nil {
		return errors.Join(err, n.forgetReset())
	}
	return nil
}

// forgetReset removes both marks, so that no later boot erases anything.
func (n *Node) forgetReset() error {
	err := n.slots.ESP(func(esp slot.ESP) error {
		return errors.Join(esp.Remove(release.ESPReset), esp.Flush())
	})
	if err = errors.Join(err, durable.Remove(n.resetMark())); err != nil {
		return fmt.Errorf("withdraw the reset: the next boot may erase the data partition, unless /%s is removed from the ESP: %w", release.ESPReset, err)
	}
	return nil
}

// forgetMachine removes the Machine that was to stay over a reset which was not needed:
// the node has it. It may hold the node's key.
func (n *Node) forgetMachine() error {
	return n.slots.ESP(func(esp slot.ESP) error {
		return errors.Join(esp.Wipe(release.ESPMachine), esp.Flush())
	})
}

func (n *Node) resetMark() string { return filepath.Join(n.config.StateDir, release.ResetMark) }

// dropStaleReset removes a mark on the ESP that the data partition, which is in use,
// does not have: it would erase that once it cannot be mounted.
func (n *Node) dropStaleReset() {
	if n.slots == nil {
		return
	}
	n.resetting.Lock()
	defer n.resetting.Unlock()
	if _, err := os.Lstat(n.resetMark()); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	marked := false
	err := n.slots.ESP(func(esp slot.ESP) error {
		f, err := esp.Open(release.ESPReset)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		marked = true
		if err != nil {
			return err
		}
		return f.Close()
	})
	if marked {
		err = errors.Join(err, n.forgetMachine(), n.forgetReset()) // without the mark nobody looks again
	}
	if err != nil {
		n.log.Error("look for the mark of an old reset on the ESP", "error", err)
	}
}
