package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// kernelLevels are the names of the syslog priorities, syslog(2).
var kernelLevels = [8]string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"}

// maxKernelRecord is the most that one read of /dev/kmsg returns.
const maxKernelRecord = 8192

// Dmesg calls each with the kernel's messages, oldest first, and with follow
// goes on until ctx ends.
func (n *Node) Dmesg(ctx context.Context, follow bool, each func(LogLine) error) error {
	// Non-blocking, so that the runtime's poller waits and Close ends a read.
	f, err := os.OpenFile("/dev/kmsg", os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("read the kernel's messages: %w", err)
	}
	defer f.Close()
	if !follow {
		// A deadline in the past makes a read that would wait return at once.
		if err := f.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			return fmt.Errorf("read the kernel's messages: %w", err)
		}
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	booted, err := bootTime()
	if err != nil {
		return err
	}
	buf := make([]byte, maxKernelRecord)
	for {
		size, err := f.Read(buf)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.EPIPE):
			continue // messages were overwritten before they were read
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, io.EOF), errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil:
			return fmt.Errorf("read the kernel's messages: %w", err)
		}
		if line, ok := parseKernelRecord(string(buf[:size]), booted); ok {
			if err := each(line); err != nil {
				return err
			}
		}
	}
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
	if err1 != nil || err2 != nil || priority < 0 || micros < 0 {
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
