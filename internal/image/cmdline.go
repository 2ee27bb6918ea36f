package image

import (
	"runtime"
	"strings"

	"oscine.dev/oscine/internal/release"
)

const hostArch = runtime.GOARCH

// commandLine is what the kernel is started with.
func commandLine(arch, flavour string, v release.Verity, locked bool, more string) string {
	words := []string{
		v.Argument(),
		"cryptomgr.notests=1", // the tests of RSA and SHA, again for each module's signature, were half of all instructions of a boot
		// Work at the start for those who read the kernel's trace files, a tenth of its
		// instructions: names in place of numbers in the formats of events, and a list of
		// functions without those that others replaced. Tracing and BPF go without.
		"initcall_blacklist=trace_eval_init,ftrace_check_for_weak_functions",
		"panic=10",                     // a kernel that cannot go on gives the boot loader its next try
		"transparent_hugepage=madvise", // "always" stalls real-time work for seconds
		"quiet", "loglevel=4",          // a serial line is slow; everything stays in the kernel's log
		"random.trust_cpu=on", // no waiting for entropy where the CPU gives it
		"cgroup_no_v1=all",    // one hierarchy
	}
	if locked {
		words = append(words, "lockdown=integrity") // also where the firmware's Secure Boot is off
	}
	if flavour == FlavourRT {
		words = append(words, "efi=runtime") // PREEMPT_RT leaves EFI variables out, which say what was booted
	}
	if arch == "arm64" {
		words = append(words, "console=tty0", "console=ttyAMA0")
	} else {
		// An emulated machine on a busy host fails the timer's self-test and hangs.
		// The watchdog of the time-stamp counter asks every CPU twice a second, those
		// set aside for real-time work too, and on such a host was seen to spin for
		// ever; counters that disagree are still found when the CPUs start.
		words = append(words, "no_timer_check", "tsc=nowatchdog", "console=tty0", "console=ttyS0,115200")
	}
	if more != "" {
		words = append(words, more)
	}
	return strings.Join(words, " ")
}
