package isolate

import (
	"errors"
	"io/fs"

	"oscine.dev/oscine/internal/object"
)

// Discard ends what runs in the cgroup of a workload that an earlier process
// prepared and that nobody wants any more, and takes the cgroup and its CPUs
// back. One that is not there, or that is prepared, is left alone.
func (i *Isolator) Discard(class object.Class, id string) error {
	defer i.change()()
	h := &holding{slice: i.o.Slice, spec: Spec{ID: id, Class: class, Exclusive: class == Realtime}}
	if i.host.cgroups == "" || i.held[id] != nil || !exists(i.cg.path(h.group())) {
		return nil
	}
	if err := writeFile(i.cg.path(h.group(), "cgroup.kill"), "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return i.removeLeaf(h)
}
