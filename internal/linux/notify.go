package linux

import (
	"errors"
	"fmt"
	"net"
	"os"
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
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify the supervisor: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify the supervisor: %w", err)
	}
	return nil
}
