package isolate

import (
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"oscine.dev/oscine/internal/printable"
)

// hugePools are the machine's huge pages: what workloads were promised of them,
// and what was added to the kernel's pools for that.
type hugePools struct {
	pools sync.Mutex // held while the kernel's pools change, which may take it seconds

	mu       sync.Mutex // of what follows; locked after pools
	promised map[string][]hugePromise
	grants   map[string][]hugeGrant
}

// hugePromise is what a workload has of one node's pool of huge pages.
type hugePromise struct {
	node        int
	size, pages int64
}

// hugeGrant is what a workload had added to one node's pool of huge pages.
type hugeGrant struct {
	file  string
	pages int64
}

// ReserveHugePages sets so many bytes of huge pages aside on the machine whose
// sysfs lies below root, the kernel's choice of memory nodes. Pages that are
// there already count. It returns ErrInvalid with what could be had.
func ReserveHugePages(root string, size, bytes int64) error {
	if size <= 0 || bytes < 0 {
		return invalid("%s of huge pages of %s", printable.Bytes(bytes), printable.Bytes(size))
	}
	file := filepath.Join(root, "sys/kernel/mm/hugepages/hugepages-"+strconv.FormatInt(size>>10, 10)+"kB/nr_hugepages")
	have, err := numberIn(file)
	if err != nil {
		return invalid("this machine has no huge pages of %s", printable.Bytes(size))
	}
	want := bytes / size
	if have >= want {
		return nil
	}
	got, err := setPool(file, have, want)
	if err == nil && got < want {
		err = invalid("%d of %d huge pages of %s could be set aside: the memory is too full or in pieces; ask for fewer, or restart the machine", got, want, printable.Bytes(size))
	}
	return err
}

// boundHugePages lets a workload take the huge pages that it asked for and no
// others, which may be promised.
func (i *Isolator) boundHugePages(h *holding) {
	files, err := filepath.Glob(i.cg.path(h.group(), "hugetlb.*.max"))
	if err != nil {
		return
	}
	asked := map[string]int64{}
	for _, p := range h.spec.HugePages {
		asked[hugeName(p.Size)] += p.Bytes
	}
	for _, file := range files {
		name := filepath.Base(file)
		size := strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(name, "hugetlb."), ".max"), ".rsvd")
		if err := i.cg.set(h.group(), name, strconv.FormatInt(asked[size], 10)); err != nil {
			h.miss("huge pages of its own", "%v", err)
		}
	}
}

// hugeName is how the hugetlb controller calls a page size, as 2MB.
func hugeName(size int64) string {
	switch {
	case size >= 1<<30:
		return strconv.FormatInt(size>>30, 10) + "GB"
	case size >= 1<<20:
		return strconv.FormatInt(size>>20, 10) + "MB"
	}
	return strconv.FormatInt(size>>10, 10) + "KB"
}

// reserve adds the pages that a workload asks for, and that the pools of its
// nodes lack beside what is promised to others, all or none. What it returns
// takes the change back; Errors: ErrInvalid, and the kernel's.
func (p *hugePools) reserve(host *host, s *Spec) (undo func() error, err error) {
	want, err := hugePromises(host, s)
	if err != nil {
		return nil, err
	}
	if len(want) == 0 {
		return func() error { return nil }, nil
	}
	p.pools.Lock()
	defer p.pools.Unlock()
	p.mu.Lock()
	before := p.promised[s.ID]
	p.mu.Unlock()
	if slices.Equal(before, want) {
		return func() error { return nil }, nil
	}
	var grants []hugeGrant
	for _, one := range want {
		grant, err := p.grow(host, s.ID, one)
		if grant.pages > 0 {
			grants = append(grants, grant)
		}
		if err != nil {
			return nil, errors.Join(err, shrink(grants))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.promised == nil {
		p.promised, p.grants = map[string][]hugePromise{}, map[string][]hugeGrant{}
	}
	p.promised[s.ID], p.grants[s.ID] = want, append(p.grants[s.ID], grants...)
	return func() error {
		p.pools.Lock()
		defer p.pools.Unlock()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.promised[s.ID], p.grants[s.ID] = before, p.grants[s.ID][:len(p.grants[s.ID])-len(grants)]
		if before == nil {
			delete(p.promised, s.ID)
			delete(p.grants, s.ID)
		}
		return shrink(grants)
	}, nil
}

// hugePromises divides what a workload asks for among its memory nodes.
func hugePromises(host *host, s *Spec) ([]hugePromise, error) {
	if len(s.HugePages) == 0 {
		return nil, nil
	}
	nodes := s.MemoryNodes.IDs()
	if len(nodes) == 0 {
		nodes = []int{0}
	}
	var all int64
	var out []hugePromise
	for _, want := range s.HugePages {
		if want.Size <= 0 || want.Bytes < 0 {
			return nil, invalid("workload %s: %s of huge pages of %s", s.ID, printable.Bytes(want.Bytes), printable.Bytes(want.Size))
		}
		all += min(want.Bytes, 1<<60)
		pages := want.Bytes / want.Size
		for n, node := range nodes {
			part := pages / int64(len(nodes))
			if n == 0 {
				part += pages % int64(len(nodes))
			}
			same := slices.IndexFunc(out, func(p hugePromise) bool { return p.node == node && p.size == want.Size })
			switch {
			case part == 0:
			case same >= 0:
				out[same].pages += part
			default:
				out = append(out, hugePromise{node, want.Size, part})
			}
		}
	}
	if total := host.memoryTotal(); all > total/8*7 {
		return nil, invalid("workload %s: %s of huge pages are asked for, this machine has %s of memory", s.ID, printable.Bytes(all), printable.Bytes(total))
	}
	return out, nil
}

// grow adds the pages that a pool lacks for a promise, and tells how many came
// also where that is not enough.
func (p *hugePools) grow(host *host, id string, want hugePromise) (hugeGrant, error) {
	file := host.file("sys/devices/system/node/node"+strconv.Itoa(want.node),
		"hugepages", "hugepages-"+strconv.FormatInt(want.size>>10, 10)+"kB", "nr_hugepages")
	have, err := numberIn(file)
	if err != nil {
		return hugeGrant{}, invalid("workload %s: memory node %d has no huge pages of %s", id, want.node, printable.Bytes(want.size))
	}
	lacking := p.others(id, want) + want.pages - have
	if lacking <= 0 {
		return hugeGrant{}, nil
	}
	got, err := setPool(file, have, have+lacking)
	grant := hugeGrant{file, got - have}
	if err == nil && grant.pages < lacking {
		err = invalid("workload %s: memory node %d could give %d of %d huge pages of %s: its memory is too full or in pieces; reserve them at boot",
			id, want.node, grant.pages, lacking, printable.Bytes(want.size))
	}
	return grant, err
}

// setPool asks the kernel for so many huge pages in place of those it has, and
// returns how many there are now, as far as is known where it fails. The kernel
// stops at a signal without a word, and Go's scheduler sends them: a write that
// got some is repeated.
func setPool(file string, have, want int64) (int64, error) {
	for {
		if err := writeFile(file, strconv.FormatInt(want, 10)); err != nil {
			return have, err
		}
		got, err := numberIn(file)
		if err != nil {
			return have, err
		}
		if got >= want || got <= have {
			return got, nil
		}
		have = got
	}
}

// others are the pages of a node that other workloads were promised.
func (p *hugePools) others(id string, of hugePromise) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var pages int64
	for other, promises := range p.promised {
		for _, one := range promises {
			if other != id && one.node == of.node && one.size == of.size {
				pages += one.pages
			}
		}
	}
	return pages
}

// release gives back what was added for a workload. One without waits for none.
func (p *hugePools) release(id string) error {
	p.mu.Lock()
	held := len(p.promised[id]) > 0
	p.mu.Unlock()
	if !held {
		return nil
	}
	p.pools.Lock()
	defer p.pools.Unlock()
	p.mu.Lock()
	grants := p.grants[id]
	delete(p.promised, id)
	delete(p.grants, id)
	p.mu.Unlock()
	return shrink(grants)
}

func shrink(grants []hugeGrant) error {
	var errs []error
	for _, g := range grants {
		have, err := numberIn(g.file)
		if err == nil {
			err = writeFile(g.file, strconv.FormatInt(max(have-g.pages, 0), 10))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func numberIn(file string) (int64, error) {
	text, err := readFile(filepath.Clean(file))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(text, 10, 64)
}
