package main

import (
	"os"
	"os/signal"
	"syscall"
)

// hold is the first process of a container that waits until somebody runs its
// program there: it takes up processes that lost their parent, and ends with
// SIGTERM or SIGINT.
func hold() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}
