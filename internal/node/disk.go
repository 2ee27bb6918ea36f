package node

import (
	"context"
	"errors"
	"time"
)

// watchDisk looks at the data partition until ctx ends.
func (n *Node) watchDisk(ctx context.Context) {
	tick := time.NewTicker(n.disk.Interval())
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		events, err := n.disk.Look()
		if err != nil {
			n.log.Warn("the disk is not watched", "error", err)
			continue
		}
		for _, e := range events {
			n.log.Warn("disk", "object", e.Owner.String(), "reason", e.Reason, "message", e.Message)
			n.note(e.Owner, e.Reason, e.Message)
			n.loop.Changed(e.Owner)
			if e.Stop {
				n.loop.Displace(map[string]error{e.Owner.ID(): errors.New(e.Message)})
			}
		}
	}
}

// sweepInterval is how often the folder of model files is swept.
const sweepInterval = 10 * time.Minute

// watchFiles removes model files that no object refers to, until ctx ends, and
// first what is left of removed volumes.
func (n *Node) watchFiles(ctx context.Context) {
	n.sweepVolumes()
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		if referred, ok := n.referredFiles(); ok {
			n.files.Sweep(referred)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
