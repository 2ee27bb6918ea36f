package main

import (
	"log/slog"
	"math"
	"runtime/debug"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenFilesAreRaised(t *testing.T) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &before) })
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 256, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	got, err := raiseFiles()
	if err != nil {
		t.Fatal(err)
	}
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}
	if now.Cur != got || now.Cur < min(before.Max, wantedFiles) || now.Max < before.Max {
		t.Errorf("got %d, the kernel has %+v, before it had %+v", got, now, before)
	}
}

func TestGoLeavesAReserve(t *testing.T) {
	for limit, want := range map[int64]int64{100 << 20: 50 << 20, 256 << 20: 192 << 20, 384 << 20: 288 << 20, 16 << 30: 12 << 30} {
		if got := goMemory(limit); got != want {
			t.Errorf("of %d MiB: got %d MiB, want %d", limit>>20, got>>20, want>>20)
		}
	}
}

func TestMemoryIsLimited(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "")
	before := debug.SetMemoryLimit(math.MaxInt64)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	limitMemory(slog.New(slog.DiscardHandler))
	if got := debug.SetMemoryLimit(-1); got == math.MaxInt64 {
		t.Error("Go may take all there is")
	}
	debug.SetMemoryLimit(math.MaxInt64)
	t.Setenv("GOMEMLIMIT", "off")
	limitMemory(slog.New(slog.DiscardHandler))
	if got := debug.SetMemoryLimit(-1); got != math.MaxInt64 {
		t.Errorf("GOMEMLIMIT does not count: got %d", got)
	}
}
