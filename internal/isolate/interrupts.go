package isolate

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/linux"
)

// moveInterrupts keeps interrupts off the reserved CPUs and lets them back on
// CPUs that are free again. Some cannot be moved: per-CPU timers, and those
// that a driver manages; Status lists what is left.
func (i *Isolator) moveInterrupts(before, after hardware.Set) {
	online := i.host.online()
	dir := i.host.file("proc/irq")
	if text, err := readFile(filepath.Join(dir, "default_smp_affinity")); err == nil {
		if mask, err := hardware.ParseMask(text); err == nil {
			if before.Empty() {
				i.homes.begin(mask, online)
			}
			i.try(filepath.Join(dir, "default_smp_affinity"), mask2text(i.homes.next("interrupts", mask, after, online)))
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		file := filepath.Join(dir, e.Name(), "smp_affinity_list")
		home, err := readList(file)
		if err != nil {
			continue
		}
		if next := i.homes.next("interrupt "+e.Name(), home, after, online); !next.Equal(home) {
			i.try(file, next.String())
		}
	}
}

func readList(file string) (hardware.Set, error) {
	text, err := readFile(file)
	if err != nil {
		return hardware.Set{}, err
	}
	return hardware.ParseList(text)
}

// try writes where failure is no news: the kernel says no to what cannot move.
func (i *Isolator) try(file, value string) {
	if err := writeFile(file, value); err != nil {
		i.log.Debug("isolation", "file", file, "error", err)
	}
}

// mask2text writes a set as the kernel's comma-separated 32-bit words.
func mask2text(s hardware.Set) string {
	ids := s.IDs()
	if len(ids) == 0 {
		return "0"
	}
	words := make([]uint32, ids[len(ids)-1]/32+1)
	for _, id := range ids {
		words[id/32] |= 1 << (id % 32)
	}
	var parts []string
	for _, w := range slices.Backward(words) {
		parts = append(parts, strconv.FormatUint(uint64(w), 16))
	}
	return strings.Join(parts, ",")
}

// interruptsOn lists the interrupts that may still come on one of the CPUs. One
// that was moved stays in its old place until it comes the next time.
func (i *Isolator) interruptsOn(cpus hardware.Set) []string {
	files, err := filepath.Glob(i.host.file("proc/irq/*/smp_affinity_list"))
	if err != nil {
		return nil
	}
	var left []string
	for _, file := range files {
		allowed, err := readList(file)
		if err != nil || !allowed.Meets(cpus) {
			continue
		}
		now, err := readList(filepath.Join(filepath.Dir(file), "effective_affinity_list"))
		if err != nil || now.Meets(cpus) {
			left = append(left, filepath.Base(filepath.Dir(file)))
		}
	}
	return left
}

// Flags of /proc/PID/stat; see include/linux/sched.h.
const (
	kernelThread = 0x00200000
	fixedThread  = 0x04000000 // its affinity cannot be set
)

// moveKernelThreads keeps kernel threads and unbound kernel work off the
// reserved CPUs. Each CPU's own threads stay: they serve what runs there.
func (i *Isolator) moveKernelThreads(before, after hardware.Set) {
	online := i.host.online()
	mask := i.host.file("sys/devices/virtual/workqueue/cpumask")
	text, err := readFile(mask + "_requested") // the other lacks what the kernel itself isolates
	if err != nil {
		text, err = readFile(mask)
	}
	if err == nil {
		if home, err := hardware.ParseMask(text); err == nil {
			i.try(mask, mask2text(i.homes.nextOfKernel("workqueues", home, after, online)))
		}
	}
	entries, err := os.ReadDir(i.host.file("proc"))
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		flags, ok := i.taskFlags(pid)
		switch {
		case !ok || flags&kernelThread == 0:
		case flags&fixedThread != 0:
			i.liftHelper(pid, before, after)
		default:
			i.moveThread(pid, after, online)
		}
	}
	if after.Empty() {
		i.homes.end()
	}
}

// liftHelper lets a CPU's own helpers of a PREEMPT_RT kernel run before the
// real-time work on it: with rcuc or ktimers kept out by a workload that never
// sleeps, no grace period of RCU would end on the whole machine, and with it
// hardly any change to a cgroup. Other kernels have no such threads.
func (i *Isolator) liftHelper(pid int, before, after hardware.Set) {
	comm, err := readFile(i.host.file("proc", strconv.Itoa(pid), "comm"))
	if err != nil {
		return
	}
	name, number, _ := strings.Cut(comm, "/")
	cpu, err := strconv.Atoi(number)
	if err != nil || (name != "rcuc" && name != "ktimers") {
		return
	}
	priority := RealtimePriority + 1
	switch {
	case after.Has(cpu):
	case before.Has(cpu):
		priority = 1 // the kernel's own
	default:
		return
	}
	if err := linux.SetScheduling(pid, linux.Scheduling{Policy: linux.PolicyFIFO, Priority: priority}); err != nil {
		i.log.Warn("isolation", "kernel thread", comm, "error", err)
	}
}

func (i *Isolator) moveThread(pid int, after, online hardware.Set) {
	var have unix.CPUSet
	if unix.SchedGetaffinity(pid, &have) != nil {
		return // it ended
	}
	home := cpusOf(&have).And(online)
	next := i.homes.nextOfKernel("thread "+strconv.Itoa(pid), home, after, online)
	if next.Equal(home) {
		return
	}
	if err := unix.SchedSetaffinity(pid, cpuSet(next)); err != nil {
		i.log.Debug("isolation", "kernel thread", pid, "error", err)
	}
}

func cpuSet(s hardware.Set) *unix.CPUSet {
	var set unix.CPUSet
	for _, cpu := range s.IDs() {
		set.Set(cpu)
	}
	return &set
}

// cpusOf is cpuSet the other way.
func cpusOf(mask *unix.CPUSet) (s hardware.Set) {
	for cpu := range len(mask) * 64 {
		if mask.IsSet(cpu) {
			s.Add(cpu)
		}
	}
	return s
}

// taskFlags reads the ninth field of /proc/PID/stat, behind the name in
// parentheses.
func (i *Isolator) taskFlags(pid int) (uint64, bool) {
	text, err := readFile(i.host.file("proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, false
	}
	end := strings.LastIndexByte(text, ')')
	if end < 0 {
		return 0, false
	}
	fields := strings.Fields(text[end+1:])
	if len(fields) < 7 {
		return 0, false
	}
	flags, err := strconv.ParseUint(fields[6], 10, 64)
	return flags, err == nil
}
