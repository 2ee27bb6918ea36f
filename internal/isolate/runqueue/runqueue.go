package runqueue

import (
	"embed"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"oscine.dev/oscine/internal/bpf"
)

// objects holds bpf/runqueue.bpf.o where make has built it.
//
//go:embed bpf
var objects embed.FS

const object = "bpf/runqueue.bpf.o"

// ErrUnsupported is returned where the kernel does not describe its own types,
// by which the program finds its way.
var ErrUnsupported = errors.New("this kernel does not describe its types (CONFIG_DEBUG_INFO_BTF)")

const kernelTypes = "/sys/kernel/btf/vmlinux"

// Meter measures until it is closed. It is safe for concurrent
// use.
type Meter struct {
	collection *ebpf.Collection
	links      []link.Link
}

// Group is a cgroup that is measured, as the kernel numbers it: by its
// folder's inode. Zero is none.
type Group uint64

// Supported tells whether Start is worth a try: nil, ErrUnsupported or
// bpf.ErrNotBuilt.
func Supported() error {
	if _, err := os.Stat(kernelTypes); err != nil {
		return ErrUnsupported
	}
	if _, err := objects.Open(object); err != nil {
		return bpf.ErrNotBuilt
	}
	return nil
}

// Start begins to measure. Errors: ErrUnsupported, bpf.ErrNotBuilt, and
// os.ErrPermission without the right to load programs.
func Start() (*Meter, error) {
	if err := Supported(); err != nil {
		return nil, err
	}
	spec, err := bpf.Read(objects, object)
	if err != nil {
		return nil, err
	}
	collection, err := bpf.Load(spec)
	if err != nil {
		return nil, fmt.Errorf("load the BPF program: %w", err)
	}
	m := &Meter{collection: collection}
	for name, program := range collection.Programs {
		l, err := link.AttachTracing(link.TracingOptions{Program: program})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach to %s: %w", name, err), m.Close())
		}
		m.links = append(m.links, l)
	}
	return m, nil
}

// Close ends measuring.
func (m *Meter) Close() error {
	var errs []error
	for _, l := range m.links {
		errs = append(errs, l.Close())
	}
	m.collection.Close()
	return errors.Join(errs...)
}

// Add begins to measure a cgroup and those below it. Wake-ups that take longer
// than the objective are counted; 0: none is. What was measured of it before
// is kept.
func (m *Meter) Add(dir string, objective time.Duration) (Group, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return 0, fmt.Errorf("cgroup %s: %w", dir, err)
	}
	var h counters
	workloads := m.collection.Maps["workloads"]
	if err := workloads.Lookup(st.Ino, &h); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0, fmt.Errorf("measure %s: %w", dir, err)
	}
	if h.Objective == uint64(objective) && h.Count > 0 {
		return Group(st.Ino), nil
	}
	h.Objective = uint64(max(objective, 0))
	if err := workloads.Put(st.Ino, &h); err != nil {
		return 0, fmt.Errorf("measure %s: %w", dir, err)
	}
	return Group(st.Ino), nil
}

// Remove ends measuring a cgroup. One that is not measured is fine.
func (m *Meter) Remove(g Group) error {
	err := m.collection.Maps["workloads"].Delete(uint64(g))
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// Read returns what was measured of a cgroup since Add.
func (m *Meter) Read(g Group) (Latency, error) {
	var h counters
	if err := m.collection.Maps["workloads"].Lookup(uint64(g), &h); err != nil {
		return Latency{}, fmt.Errorf("read the wake-ups of cgroup %d: %w", g, err)
	}
	return Latency{h}, nil
}
