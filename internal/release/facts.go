package release

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// FactsFile is the name of the file in the daemon's run folder that holds the
// Facts of this boot.
const FactsFile = "boot"

// Facts are what stage 1 and PID 1 know about a boot. Stage 1 hands them to PID 1
// and PID 1 to the daemon, in one form: key=value lines.
type Facts struct {
	Slot   string        // that holds the root: PartitionRootA or PartitionRootB
	Disk   string        // kernel name of the disk it lies on, such as vda
	Data   string        // device of the data partition; empty when /var is in memory only
	Locked string        // why the data partition is encrypted and not open; empty where it is open or plain
	Image  string        // path of the kernel image on the ESP, with slashes; empty after a boot without a boot loader
	Trial  bool          // the image has a boot counter that still runs
	Good   bool          // PID 1 marked the image good in this boot
	Stage1 time.Duration // that stage 1 took, in milliseconds
	Kernel time.Duration // from the start of the kernel until PID 1 wrote this, in milliseconds
}

// Counted reports whether the image that was booted has a boot counter.
func (f Facts) Counted() bool {
	e, ok := ParseEntry(f.Image[strings.LastIndexByte(f.Image, '/')+1:])
	return ok && e.Counted
}

// String is what ParseFacts reads. A control character in a value, which
// firmware and disks can name, becomes a question mark.
func (f Facts) String() string {
	var b strings.Builder
	for _, line := range []struct{ key, value string }{
		{"slot", f.Slot}, {"disk", f.Disk}, {"data", f.Data}, {"locked", f.Locked}, {"image", f.Image},
		{"trial", strconv.FormatBool(f.Trial)}, {"good", strconv.FormatBool(f.Good)},
		{"stage1", strconv.FormatInt(f.Stage1.Milliseconds(), 10)},
		{"kernel", strconv.FormatInt(f.Kernel.Milliseconds(), 10)},
	} {
		fmt.Fprintf(&b, "%s=%s\n", line.key, strings.Map(printable, line.value))
	}
	return b.String()
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return '?'
	}
	return r
}

// ParseFacts reads what String wrote. Lines it does not know are passed over,
// for a later release may write more; a value that makes no sense is left at
// zero.
func ParseFacts(text string) Facts {
	var f Facts
	for line := range strings.SplitSeq(text, "\n") {
		key, value, _ := strings.Cut(line, "=")
		switch key {
		case "slot":
			f.Slot = value
		case "disk":
			f.Disk = value
		case "data":
			f.Data = value
		case "locked":
			f.Locked = value
		case "image":
			f.Image = value
		case "trial":
			f.Trial = value == "true"
		case "good":
			f.Good = value == "true"
		case "stage1":
			f.Stage1 = parseMilliseconds(value)
		case "kernel":
			f.Kernel = parseMilliseconds(value)
		}
	}
	return f
}

func parseMilliseconds(text string) time.Duration {
	ms, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}
