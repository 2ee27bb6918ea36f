package boot

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"oscine.dev/oscine/internal/release"
)

// Kernel log levels (include/linux/kern_levels.h) that init uses.
const (
	levelError  = 3
	levelNotice = 5
)

const maxLogLine = 900 // the kernel cuts /dev/kmsg records near 1000 bytes

// Log writes init's lines to the kernel log, where they share one clock with
// the kernel's own, and to the console when the kernel would keep them quiet.
type Log struct {
	kmsg    *os.File
	console *os.File

	mu   sync.Mutex
	kept string // file on the data partition, during a boot on trial; not held open
}

// Keep also writes every line from now on to the file of that name, on the disk
// before the call returns: it tells the version before why this one failed.
func (l *Log) Keep(name string) error {
	f, err := openKept(name)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = name
	return f.Close()
}

func openKept(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// Release ends Keep.
func (l *Log) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = ""
}

// keep writes a line to the kept file alone. Its file system may be another one by
// now, or none: see the daemon's encrypting.
func (l *Log) keep(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kept == "" {
		return
	}
	f, err := openKept(l.kept)
	if err != nil {
		return
	}
	defer f.Close()
	if at, err := f.Seek(0, io.SeekEnd); err != nil || at+int64(len(line)) > release.MaxBootLog {
		return // the first failure is what matters
	}
	if _, err := fmt.Fprintf(f, "[%12.6f] %s\n", uptime().Seconds(), line); err == nil {
		_ = f.Sync()
	}
}

// OpenLog opens the kernel log; it always returns a usable Log, in the worst
// case one that says nothing.
func OpenLog() *Log {
	log := &Log{}
	if f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); err == nil {
		log.kmsg = f
	}
	if f, err := os.OpenFile("/dev/console", os.O_WRONLY, 0); err == nil {
		log.console = f
	}
	return log
}

// consoleLevel is the level below which the kernel prints to the console.
func consoleLevel(file string) int {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(raw))
	if len(fields) == 0 {
		return 0
	}
	level, err := strconv.Atoi(fields[0])
	if err != nil {
		return 0
	}
	return level
}

// Notice logs what a person watching the boot wants to see.
func (l *Log) Notice(format string, args ...any) { l.write(levelNotice, format, args...) }

// Error logs what went wrong.
func (l *Log) Error(format string, args ...any) { l.write(levelError, format, args...) }

func (l *Log) write(level int, format string, args ...any) {
	line := release.InitLogPrefix + fmt.Sprintf(format, args...)
	line = strings.ReplaceAll(line, "\n", " ")
	if len(line) > maxLogLine {
		line = line[:maxLogLine]
	}
	// A log that cannot be written has nobody left to tell.
	l.keep(strings.TrimPrefix(line, release.InitLogPrefix))
	if l.kmsg != nil {
		_, _ = fmt.Fprintf(l.kmsg, "<%d>%s\n", level, line)
	}
	printed := l.kmsg != nil && level < consoleLevel("/proc/sys/kernel/printk")
	if l.console != nil && !printed {
		_, _ = fmt.Fprintf(l.console, "[%12.6f] %s\r\n", uptime().Seconds(), line)
	}
}
