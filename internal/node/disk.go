package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"oscine.dev/oscine/internal/object"
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
			n.changes.publish(e.Owner)
			if e.Stop {
				n.displace(map[string]error{e.Owner.ID(): errors.New(e.Message)})
			}
		}
	}
}

// volume is where a volume lies.
func (n *Node) volume(name string) string { return filepath.Join(n.config.StateDir, "volumes", name) }

// claimVolumes makes what volumes are not there yet, and bounds all.
func (w *workload) claimVolumes(obj *object.Workload) error {
	for _, v := range obj.Spec.Volumes {
		if v.ReadOnly {
			continue
		}
		dir := w.n.volume(v.Name)
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return fmt.Errorf("make volume %s: %w", v.Name, err)
		}
		limit, _ := v.Size.Value() // checked with the manifest
		if err := w.n.disk.Claim(w.key, "volume "+v.Name, dir, limit); err != nil {
			return err
		}
	}
	return nil
}

// claimLayer bounds the writable layer over the image.
func (w *workload) claimLayer(ctx context.Context, obj *object.Workload) error {
	dir, err := w.n.runtime.Layer(ctx, w.key.ID())
	if err != nil {
		return err
	}
	limit, _ := obj.Spec.Resources.EphemeralStorage.Value() // checked with the manifest
	return w.n.disk.Claim(w.key, "writable layer", dir, limit)
}
