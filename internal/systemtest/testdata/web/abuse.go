package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// spin computes for ever, on as many threads as CPUs.
func spin() {
	for range runtime.NumCPU() - 1 {
		go func() {
			for {
			}
		}()
	}
	for {
	}
}

// fork starts children for ever, and keeps them all.
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

// fill writes files into a folder for ever, and says when it no longer can.
func fill(dir string) {
	block := make([]byte, 1<<20)
	for n := 0; ; n++ {
		if err := os.WriteFile(fmt.Sprintf("%s/%d", dir, n), block, 0o600); err != nil {
			fmt.Println("fill", n, err)
			time.Sleep(time.Second)
		}
	}
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
