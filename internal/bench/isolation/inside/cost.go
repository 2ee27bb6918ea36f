package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/isolate/runqueue"
	"oscine.dev/oscine/internal/linux"
)

// cost prints what measuring wake-ups adds to a switch between two threads
// that wake each other: in other workloads than those measured, and in one.
func (b *bench) cost() error {
	const group = "/sys/fs/cgroup/cost"
	own := filepath.Join(group, "a", "b")
	if err := os.MkdirAll(own, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(own, "cgroup.procs"), []byte("0"), 0o644); err != nil {
		return err
	}
	switches := func() (time.Duration, error) {
		if _, err := pingPong(10_000); err != nil {
			return 0, err
		}
		return pingPong(200_000)
	}
	without, err := switches()
	if err != nil {
		return err
	}
	m, err := runqueue.Start()
	if err != nil {
		return err
	}
	unmeasured, err := switches()
	if err != nil {
		return err
	}
	if _, err := m.Add(own, time.Millisecond); err != nil {
		return err
	}
	measured, err := switches()
	if err != nil {
		return err
	}
	for _, line := range []struct {
		what string
		took time.Duration
	}{{"not loaded", without}, {"of a workload that is not measured", unmeasured}, {"of one that is", measured}} {
		fmt.Printf("cost: wake-up and switch %s: %d ns, %.3f times\n", line.what, line.took.Nanoseconds(), float64(line.took)/float64(without))
	}
	return m.Close()
}

// pingPong lets two threads wake each other n times in all and returns what
// one time took.
func pingPong(n int) (time.Duration, error) {
	var there, back [2]int
	for _, p := range []*[2]int{&there, &back} {
		if err := unix.Pipe(p[:]); err != nil {
			return 0, err
		}
		defer unix.Close(p[0])
		defer unix.Close(p[1])
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- pass(there[0], back[1], n/2, false)
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := linux.Monotonic()
	err := pass(back[0], there[1], n/2, true)
	took := time.Duration(linux.Monotonic() - began)
	if e := <-done; err == nil {
		err = e
	}
	return took / time.Duration(n), err
}

// pass waits for a byte and sends one on, or first sends one.
func pass(from, to, n int, first bool) error {
	var b [1]byte
	for range n {
		if first {
			if _, err := unix.Write(to, b[:]); err != nil {
				return err
			}
		}
		if _, err := unix.Read(from, b[:]); err != nil {
			return err
		}
		if !first {
			if _, err := unix.Write(to, b[:]); err != nil {
				return err
			}
		}
	}
	return nil
}
