package isolate

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"
)

// hugePromise is a workload's share of one node's pool of huge pages.
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
		return invalid("%d bytes of huge pages of %d bytes", bytes, size)
	}
	file := filepath.Join(root, "sys/kernel/mm/hugepages/hugepages-"+strconv.FormatInt(size>>10, 10)+"kB/nr_hugepages")
	have, err := numberIn(file)
	if err != nil {
		return invalid("this machine has no huge pages of %d KiB", size>>10)
	}
	want := bytes / size
	if have >= want {
		return nil
	}
	got, err := setPool(file, have, want)
	if err == nil && got < want {
		err = invalid("%d of %d huge pages of %d KiB could be set aside: the memory is too full or in pieces; ask for fewer, or restart the machine", got, want, size>>10)
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

// reserveHugePages adds the pages that a workload asks for, and that the pools
// of its nodes lack beside what is promised to others, all or none.
func (i *Isolator) reserveHugePages(h *holding) error {
	if len(h.spec.HugePages) == 0 || len(h.promised) > 0 {
		return nil
	}
	nodes := h.spec.MemoryNodes.IDs()
	if len(nodes) == 0 {
		nodes = []int{0}
	}
	var all int64
	for _, want := range h.spec.HugePages {
		if want.Size <= 0 || want.Bytes < 0 {
			return invalid("workload %s: %d bytes of huge pages of %d bytes", h.spec.ID, want.Bytes, want.Size)
		}
		all += min(want.Bytes, 1<<60)
	}
	if total := i.host.memoryTotal(); all > total/8*7 {
		return invalid("workload %s: %d MiB of huge pages are asked for, this machine has %d MiB of memory", h.spec.ID, all>>20, total>>20)
	}
	for _, want := range h.spec.HugePages {
		pages := want.Bytes / want.Size
		for n, node := range nodes {
			share := pages / int64(len(nodes))
			if n == 0 {
				share += pages % int64(len(nodes))
			}
			if err := i.growPool(h, node, want.Size, share); err != nil {
				return errors.Join(err, i.returnHugePages(h))
			}
			h.promised = append(h.promised, hugePromise{node, want.Size, share})
		}
	}
	return nil
}

func (i *Isolator) growPool(h *holding, node int, size, pages int64) error {
	if pages == 0 {
		return nil
	}
	file := i.host.file("sys/devices/system/node/node"+strconv.Itoa(node),
		"hugepages", "hugepages-"+strconv.FormatInt(size>>10, 10)+"kB", "nr_hugepages")
	have, err := numberIn(file)
	if err == nil {
		if pages = i.promisedPages(node, size) + pages - have; pages <= 0 {
			return nil
		}
	}
	if err != nil {
		return invalid("workload %s: memory node %d has no huge pages of %d bytes", h.spec.ID, node, size)
	}
	got, err := setPool(file, have, have+pages)
	h.huge = append(h.huge, hugeGrant{file, got - have})
	if err != nil {
		return err
	}
	if got < have+pages {
		return invalid("workload %s: memory node %d could give %d of %d huge pages of %d bytes: its memory is too full or in pieces; reserve them at boot",
			h.spec.ID, node, got-have, pages, size)
	}
	return nil
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

// promisedPages are those of a node that workloads were promised already.
func (i *Isolator) promisedPages(node int, size int64) int64 {
	var pages int64
	for _, h := range i.held {
		for _, p := range h.promised {
			if p.node == node && p.size == size {
				pages += p.pages
			}
		}
	}
	return pages
}

func (i *Isolator) returnHugePages(h *holding) error {
	var errs []error
	for _, g := range h.huge {
		have, err := numberIn(g.file)
		if err == nil {
			err = writeFile(g.file, strconv.FormatInt(max(have-g.pages, 0), 10))
		}
		errs = append(errs, err)
	}
	h.huge, h.promised = nil, nil
	return errors.Join(errs...)
}

func numberIn(file string) (int64, error) {
	text, err := readFile(filepath.Clean(file))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(text, 10, 64)
}
