package isolate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
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

// awake tells whether CPUs are kept awake and at full speed, as sysfs shows it.
func (i *Isolator) awake(cpus hardware.Set) (held bool, detail string) {
	detail = "the host sets their frequency"
	for _, cpu := range cpus.IDs() {
		limit, err := readFile(i.cpuFile(cpu, "power/pm_qos_resume_latency_us"))
		if (err != nil || limit != "n/a") && !i.view().machineAwake {
			return false, fmt.Sprintf("CPU %d may sleep: its resume latency is not held (%s%s)", cpu, limit, errorText(err))
		}
		governor, err := readFile(i.cpuFile(cpu, "cpufreq/scaling_governor"))
		if err == nil && governor != "performance" {
			return false, fmt.Sprintf("CPU %d may slow down: its governor is %s", cpu, governor)
		}
		if err == nil {
			detail = "governor performance"
		}
	}
	return true, detail
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
	i.try(i.host.file("sys/module/rcupdate/parameters/rcu_cpu_stall_timeout"), strconv.Itoa(stallTimeout))
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
	_, rest, _ := strings.Cut(text, "[")
	one, _, _ := strings.Cut(rest, "]")
	return one
}
