package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/cilium/ebpf"
)

// ErrNotBuilt is returned where this program was built from a tree in which
// make had not compiled the BPF programs.
var ErrNotBuilt = errors.New("this program was built without its BPF programs: run make build in its source tree, not go build alone")

// Read reads the object of a name, such as bpf/scheduler.bpf.o, out of an embedded
// folder. Errors: ErrNotBuilt.
func Read(files fs.ReadFileFS, name string) (*ebpf.CollectionSpec, error) {
	raw, err := files.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path.Base(name), ErrNotBuilt)
	}
	if err != nil {
		return nil, err
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("read the BPF object %s: %w", path.Base(name), err)
	}
	return spec, nil
}
