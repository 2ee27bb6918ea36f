package node

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/linux"
)

// kernelLevels are the names of the syslog priorities, syslog(2).
var kernelLevels = [8]string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"}

// Dmesg calls each with the kernel's messages, oldest first, and with follow
// goes on until ctx ends.
func (n *Node) Dmesg(ctx context.Context, follow bool, each func(LogLine) error) error {
	booted, err := bootTime()
	if err != nil {
		return err
	}
	return linux.KernelLog(ctx, linux.KernelLogFile, linux.KernelLogOptions{Follow: follow}, func(record string) error {
		if line, ok := parseKernelRecord(record, booted); ok {
			return each(line)
		}
		return nil
	})
}

// parseKernelRecord reads "priority,sequence,microseconds,flags;text\n".
//
// Source: Linux, Documentation/ABI/testing/dev-kmsg.
func parseKernelRecord(record string, booted time.Time) (LogLine, bool) {
	head, text, ok := strings.Cut(record, ";")
	fields := strings.Split(head, ",")
	if !ok || len(fields) < 3 {
		return LogLine{}, false
	}
	priority, err1 := strconv.Atoi(fields[0])
	micros, err2 := strconv.ParseInt(fields[2], 10, 64)
	if err1 != nil || err2 != nil || priority < 0 || micros < 0 || micros > math.MaxInt64/int64(time.Microsecond) {
		return LogLine{}, false
	}
	text, _, _ = strings.Cut(text, "\n") // continuation lines hold key=value pairs
	return LogLine{booted.Add(time.Duration(micros) * time.Microsecond), kernelLevels[priority&7], text}, true
}

// bootTime is when the kernel's clock was zero.
func bootTime() (time.Time, error) {
	up, err := kernelUptime()
	return time.Now().Add(-up), err
}

func kernelUptime() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, fmt.Errorf("read the kernel's clock: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}
