package linux

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNoSupervisor is returned by Notify where NOTIFY_SOCKET is not set.
var ErrNoSupervisor = errors.New("no supervisor to notify")

// Notify tells the supervisor of this process a state such as "READY=1".
//
// Source: sd_notify(3).
func Notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return ErrNoSupervisor
	}
	// Without package net, which PID 1 would drag along.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("notify the supervisor: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, []byte(state), 0, &unix.SockaddrUnix{Name: path}); err != nil {
		return fmt.Errorf("notify the supervisor: %w", err)
	}
	return nil
}
