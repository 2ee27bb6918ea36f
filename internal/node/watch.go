package node

import (
	"context"
	"path/filepath"
	"time"

	"oscine.dev/oscine/internal/hardware"
)

// healthInterval is how often devices are looked at that announce nothing,
// such as a worn link.
const healthInterval = 30 * time.Second

// watchHardware keeps placements and CDI specifications true to the machine
// until ctx ends.
func (n *Node) watchHardware(ctx context.Context) {
	err := hardware.Watch(ctx, sysRoot, healthInterval, func(m *hardware.Machine, changes []hardware.Change) {
		n.hardwareFound(ctx, m, changes)
	})
	if err != nil && ctx.Err() == nil {
		n.log.Error("the hardware is not watched any more", "error", err)
	}
}

// networkInterval is how often the workload network is compared with what is
// meant, since others on the host may change it.
const networkInterval = time.Minute

// watchNetwork repairs the workload network until ctx ends.
func (n *Node) watchNetwork(ctx context.Context) {
	tick := time.NewTicker(networkInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n.repairNetwork(ctx)
	}
}

func (n *Node) repairNetwork(ctx context.Context) {
	if err := n.box.RepairNetwork(ctx, n.wantedPorts); err != nil {
		n.log.Warn("the workload network is not whole", "error", err)
	}
}

// cdiDir is where the node writes the CDI specifications of its devices.
func (n *Node) cdiDir() string { return filepath.Join(n.config.RunDir, "cdi") }

// hardwareChanged gives what was placed on a part that is gone another part,
// or reports that none fits: its controller places it again.
func (n *Node) hardwareChanged(m *hardware.Machine) {
	displaced, err := n.placer.Renew(m)
	if err != nil {
		n.log.Error("the changed machine is not understood; placements stay", "error", err)
		return
	}
	n.displace(displaced)
	n.box.UpdateCPUs()
}
