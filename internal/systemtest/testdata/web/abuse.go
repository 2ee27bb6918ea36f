package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// spin computes forever, on as many threads as CPUs.
func spin() {
	for range runtime.NumCPU() - 1 {
		go func() {
			for n := 0; ; n++ {
			}
		}()
	}
	for n := 0; ; n++ {
	}
}

// copyMemory copies more memory than caches hold, forever, on as many threads as CPUs.
func copyMemory() {
	const size = 32 << 20
	from, to := make([]byte, size), make([]byte, size)
	for range runtime.NumCPU() {
		go func() {
			for {
				copy(to, from)
			}
		}()
	}
	select {}
}

// fork starts children forever, and keeps them all.
func fork() {
	started := 0
	for {
		child := exec.Command("/web", "sleep")
		if err := child.Start(); err != nil {
			fmt.Println("fork", started, err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		started++
	}
}

// fill takes space in a folder forever, and says when it no longer can.
func fill(dir string) {
	for n := 0; ; n++ {
		if err := take(fmt.Sprintf("%s/%d", dir, n), 1<<20); err != nil {
			fmt.Println("fill", n, err)
			time.Sleep(time.Second)
		}
	}
}

// litter makes empty files without end in a folder.
func litter(dir string) {
	for n := 0; ; n++ {
		f, err := os.Create(fmt.Sprintf("%s/%d", dir, n))
		if err != nil {
			fmt.Println("litter", n, err)
			time.Sleep(time.Second)
			continue
		}
		f.Close()
	}
}

func take(name string, bytes int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fallocate(int(f.Fd()), 0, 0, bytes)
}

// policy prints how the kernel schedules the first process here.
func policy() {
	attr, err := unix.SchedGetAttr(1, 0)
	if err != nil {
		fmt.Println("policy:", err)
		return
	}
	fmt.Println("policy", attr.Policy, "runtime", attr.Runtime, "deadline", attr.Deadline, "period", attr.Period)
}
