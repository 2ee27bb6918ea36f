package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/install"
	"oscine.dev/oscine/internal/node/upgrade"
	"oscine.dev/oscine/internal/object"
)

// machineDisks is where the machine's disks are.
func (n *Node) machineDisks() install.Machine {
	if n.config.Upgrading.Facts == nil {
		return install.Machine{}
	}
	return install.Machine{System: n.config.Upgrading.Facts().Disk}
}

// Disks lists the machine's disks, with why not each takes Oscine.
func (n *Node) Disks() ([]install.Disk, error) { return n.machineDisks().Disks() }

// Install puts the version that runs on another disk, and returns its name. machine
// is the Machine of the new system; nil stands for this node's, with its identity,
// unless the system is to have none or keeps its data.
func (n *Node) Install(ctx context.Context, disk string, machine *object.Machine, unconfigured bool, o install.Options) (string, error) {
	if n.slots == nil {
		return "", upgrade.NotHere(n.config.Upgrading.Facts, "use oscine install --image there", "boot another Linux, and use oscine install --image there")
	}
	target := n.machineDisks()
	d, err := target.Find(disk)
	if errors.Is(err, install.ErrNoDisk) {
		return "", fmt.Errorf("%w: %w", errdefs.ErrNotFound, err)
	}
	if err != nil {
		return "", err
	}
	if machine == nil && !unconfigured && !o.KeepData {
		machine = n.machine
	}
	if machine != nil {
		if o.Machine, err = json.Marshal(machine); err != nil { // which YAML is a part of
			return "", err
		}
	}
	image, err := n.slots.RunningImage()
	if err != nil {
		return "", err
	}
	root, done, err := n.slots.Running()
	if err != nil {
		return "", err
	}
	defer done.Close()
	source, err := install.Open(image, root.Data)
	if err != nil {
		return "", err
	}
	n.log.Info("install", "disk", d.Path, "model", d.Model, "version", source.Version, "keep data", o.KeepData)
	if err := target.Install(ctx, d, source, o); err != nil {
		n.events.Add(Event{Reason: "InstallFailed", Message: err.Error(), Warning: true})
		return "", err
	}
	n.events.Add(Event{Reason: "Installed", Message: fmt.Sprintf("%s is on %s", source.Version, d.Path)})
	return source.Version, nil
}
