package node

import (
	"context"
	"strconv"
	"strings"
	"time"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
)

// initProgram is the name under which Logs shows what PID 1 wrote. PID 1 has no
// journal: it writes before there is a disk, into the kernel's log.
const initProgram = "init"

// initLog calls each with PID 1's lines in the kernel's log at path, as Logs.
func initLog(ctx context.Context, path string, q LogQuery, each func(LogLine) error) error {
	booted, err := bootTime()
	if err != nil {
		return err
	}
	var lines []LogLine
	last := int64(-1)
	err = linux.KernelLog(ctx, path, linux.KernelLogOptions{}, func(record string) error {
		last = max(last, sequence(record))
		if line, ok := parseInitRecord(record, booted); ok && !line.Time.Before(q.Since) {
			lines = append(lines, line)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if q.Tail > 0 {
		lines = lines[max(0, len(lines)-q.Tail):]
	}
	for _, line := range lines {
		if err := each(line); err != nil {
			return err
		}
	}
	if !q.Follow {
		return nil
	}
	return linux.KernelLog(ctx, path, linux.KernelLogOptions{Follow: true}, func(record string) error {
		if line, ok := parseInitRecord(record, booted); ok && sequence(record) > last {
			return each(line)
		}
		return nil
	})
}

// sequence is the number of a record of the kernel's log, -1 for one without.
func sequence(record string) int64 {
	fields := strings.SplitN(record, ",", 3)
	if len(fields) < 3 {
		return -1
	}
	n, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// parseInitRecord reads a record that PID 1 wrote; false for any other.
func parseInitRecord(record string, booted time.Time) (LogLine, bool) {
	line, ok := parseKernelRecord(record, booted)
	if !ok {
		return line, false
	}
	line.Text, ok = strings.CutPrefix(line.Text, release.InitLogPrefix)
	return line, ok
}
