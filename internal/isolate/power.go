package isolate

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/hardware"
)

// latencyHold keeps one CPU out of deep idle states and at full speed.
type latencyHold struct {
	resume   string // earlier pm_qos_resume_latency_us, "" where the file is missing
	governor string // earlier scaling_governor
}

// holdLatency keeps exactly the given CPUs awake: their idle states may take
// no time to leave, and their frequency stays up. Where a CPU has no such file
// of its own, the whole machine is held by /dev/cpu_dma_latency; see
// Documentation/power/pm_qos_interface.rst.
func (i *Isolator) holdLatency(cpus hardware.Set) {
	for cpu, old := range i.latency {
		if !cpus.Has(cpu) {
			i.letSleep(cpu, old)
			delete(i.latency, cpu)
		}
	}
	machine := false
	for _, cpu := range cpus.IDs() {
		if i.latency[cpu] == nil {
			i.latency[cpu] = i.keepAwake(cpu)
		}
		machine = machine || i.latency[cpu].resume == ""
	}
	i.holdMachine(machine)
}

func (i *Isolator) cpuFile(cpu int, parts ...string) string {
	return i.host.file(append([]string{"sys/devices/system/cpu/cpu" + strconv.Itoa(cpu)}, parts...)...)
}

func (i *Isolator) keepAwake(cpu int) *latencyHold {
	hold := &latencyHold{}
	file := i.cpuFile(cpu, "power/pm_qos_resume_latency_us")
	// "n/a" allows no latency at all; 0, oddly, any.
	if old, err := readFile(file); err == nil && writeFile(file, "n/a") == nil {
		hold.resume = old
	}
	file = i.cpuFile(cpu, "cpufreq/scaling_governor")
	if old, err := readFile(file); err == nil && old != "performance" && writeFile(file, "performance") == nil {
		hold.governor = old
	}
	return hold
}

func (i *Isolator) letSleep(cpu int, old *latencyHold) {
	if old.resume != "" {
		i.try(i.cpuFile(cpu, "power/pm_qos_resume_latency_us"), old.resume)
	}
	if old.governor != "" {
		i.try(i.cpuFile(cpu, "cpufreq/scaling_governor"), old.governor)
	}
}

// holdMachine holds /dev/cpu_dma_latency at zero for as long as it is open.
func (i *Isolator) holdMachine(hold bool) {
	if !hold {
		if i.dmaLatency != nil {
			_ = i.dmaLatency.Close() // closing is what lets go
			i.dmaLatency = nil
		}
		return
	}
	if i.dmaLatency != nil {
		return
	}
	f, err := os.OpenFile(i.host.file("dev/cpu_dma_latency"), os.O_WRONLY, 0)
	if err != nil {
		i.log.Debug("isolation", "error", err)
		return
	}
	if _, err := f.Write(binary.NativeEndian.AppendUint32(nil, 0)); err != nil {
		_ = f.Close() // it holds nothing
		return
	}
	i.dmaLatency = f
}

// tuneKernel makes the kernel-wide settings that latency needs, or says what a
// host that is not ours loses without them.
func (i *Isolator) tuneKernel() []Gap {
	var gaps []Gap
	const thp = "sys/kernel/mm/transparent_hugepage/enabled"
	if text, err := readFile(i.host.file(thp)); err == nil && chosen(text) == "always" {
		if !i.o.Own {
			gaps = append(gaps, Gap{"no stalls by huge pages", "transparent huge pages are set to always: write madvise to /" + thp})
		} else if err := writeFile(i.host.file(thp), "madvise"); err != nil {
			gaps = append(gaps, Gap{"no stalls by huge pages", err.Error()})
		}
	}
	if !i.o.Own {
		return gaps
	}
	// A lazy kernel lets batch work finish its system call or tick first.
	const preempt = "sys/kernel/debug/sched/preempt"
	if text, err := readFile(i.host.file(preempt)); err == nil && strings.Contains(text, "(full)") {
		return gaps // changing it stops the machine for a moment
	}
	if err := writeFile(i.host.file(preempt), "full"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		gaps = append(gaps, Gap{"batch yields inside the kernel too", err.Error()})
	}
	return gaps
}

// chosen is the bracketed one of a sysfs choice such as "always [madvise]".
func chosen(text string) string {
	for i := range len(text) {
		if text[i] != '[' {
			continue
		}
		for j := i + 1; j < len(text); j++ {
			if text[j] == ']' {
				return text[i+1 : j]
			}
		}
	}
	return ""
}

// hugeGrant is what a workload had added to one node's pool of huge pages.
type hugeGrant struct {
	file  string
	pages int64
}

// reserveHugePages adds the pages that a workload asks for to the pools of its
// nodes, all or none.
func (i *Isolator) reserveHugePages(h *holding) error {
	if len(h.spec.HugePages) == 0 || len(h.huge) > 0 {
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
	if err != nil {
		return invalid("workload %s: memory node %d has no huge pages of %d bytes", h.spec.ID, node, size)
	}
	if err := writeFile(file, strconv.FormatInt(have+pages, 10)); err != nil {
		return err
	}
	got, err := numberIn(file)
	if err != nil {
		return err
	}
	h.huge = append(h.huge, hugeGrant{file, got - have})
	if got < have+pages {
		return invalid("workload %s: memory node %d could give %d of %d huge pages of %d bytes: its memory is too full or in pieces; reserve them at boot",
			h.spec.ID, node, got-have, pages, size)
	}
	return nil
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
	h.huge = nil
	return errors.Join(errs...)
}

func numberIn(file string) (int64, error) {
	text, err := readFile(filepath.Clean(file))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(text, 10, 64)
}
