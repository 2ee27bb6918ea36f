package main

import (
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/isolate"
)

// wantedFiles is how many files the daemon and each workload may have open: a
// connection is one, and so is each end of a workload's pipes.
const wantedFiles = 1 << 20

// raiseFiles lets this process, and what it starts, open more files than the
// kernel's 1024 and 4096, as far as it has the right. It returns how many.
func raiseFiles() (uint64, error) {
	var have unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &have); err != nil {
		return 0, fmt.Errorf("read the limit on open files: %w", err)
	}
	want := uint64(wantedFiles)
	if text, err := os.ReadFile("/proc/sys/fs/nr_open"); err == nil {
		if most, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil {
			want = min(want, most)
		}
	}
	want = max(want, have.Max)
	err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: want, Max: want})
	if err != nil { // without CAP_SYS_RESOURCE
		want = have.Max
		err = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: want, Max: want})
	}
	if err != nil {
		return have.Cur, fmt.Errorf("raise the limit on open files to %d: %w", want, err)
	}
	return want, nil
}

// goMemory is how much of the memory that a process may use is for Go: the
// rest is a reserve for what the runtime does not count, such as shims, pages
// of files and the kernel's own.
func goMemory(limit int64) int64 { return limit - max(limit/4, min(64<<20, limit/2)) }

// limitMemory makes the garbage collector work before the kernel has to refuse
// memory. GOMEMLIMIT, where it is set, counts.
func limitMemory(log *slog.Logger) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if limit := isolate.MemoryLimit("/"); limit > 0 {
		debug.SetMemoryLimit(goMemory(limit))
		log.Debug("memory", "limit", limit, "of Go", goMemory(limit))
	}
}
