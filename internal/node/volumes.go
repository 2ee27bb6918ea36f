package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"oscine.dev/oscine/internal/disk"
	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/object"
)

// Volume is a folder of workloads that outlives them.
type Volume struct {
	Name    string
	Used    disk.Amount
	Objects []string // that name it, as Kind/name
}

// removing begins the names of volumes whose removal has begun. No volume's name
// begins with a dot.
const removing = ".removing-"

func (n *Node) volumesDir() string { return filepath.Join(n.config.StateDir, "volumes") }

// Volumes lists the volumes by name.
func (n *Node) Volumes() ([]Volume, error) {
	entries, err := os.ReadDir(n.volumesDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the volumes: %w", err)
	}
	var list []Volume
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		v := Volume{Name: e.Name(), Objects: n.volumeUsers(e.Name())}
		if v.Used, err = n.disk.Used(filepath.Join(n.volumesDir(), v.Name)); err != nil {
			return nil, fmt.Errorf("measure the volume %s: %w", v.Name, err)
		}
		list = append(list, v)
	}
	return list, nil
}

func (n *Node) volumeUsers(name string) (users []string) {
	for _, obj := range n.loop.Objects() {
		if w, ok := obj.(*object.Workload); ok {
			for _, v := range w.Spec.Volumes {
				if v.Name == name {
					users = append(users, w.Key().String())
					break
				}
			}
		}
	}
	return users
}

// RemoveVolume deletes a volume that no workload names, with all that is in it.
func (n *Node) RemoveVolume(name string) error {
	if err := object.CheckName(name); err != nil {
		return fmt.Errorf("%w: volume %q: %w", ErrInvalid, name, err)
	}
	if users := n.volumeUsers(name); len(users) > 0 {
		return fmt.Errorf("%w: %s has the volume %s: delete that first", ErrConflict, users[0], name)
	}
	// Its name is gone at once; a removal that is cut short goes on at the next start.
	dir := filepath.Join(n.volumesDir(), name)
	trash, err := os.MkdirTemp(n.volumesDir(), removing)
	if errors.Is(err, fs.ErrNotExist) { // there has never been a volume
		return fmt.Errorf("volume %q: %w (see oscine volume list)", name, ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("remove the volume %s: %w", name, err)
	}
	err = durable.Rename(dir, filepath.Join(trash, name))
	if err := os.RemoveAll(trash); err != nil {
		return fmt.Errorf("remove the volume %s: %w", name, err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("volume %q: %w (see oscine volume list)", name, ErrNotFound)
	}
	return err
}

// sweepVolumes goes on with removals that were cut short.
func (n *Node) sweepVolumes() {
	cut, err := filepath.Glob(filepath.Join(n.volumesDir(), removing+"*"))
	for _, dir := range cut {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		n.log.Warn("a removed volume takes room still", "error", err)
	}
}
