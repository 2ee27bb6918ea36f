package boot

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Request is what the daemon may ask PID 1 to do with the machine.
type Request string

// The requests of X_OSCINE=…; any other value is none.
const (
	RequestNone     Request = ""
	RequestReboot   Request = "reboot"
	RequestPowerOff Request = "poweroff"
)

const (
	maxNotification = 4096
	maxStatus       = 200
)

// Notification is one datagram of the sd_notify protocol (sd_notify(3)), as far
// as PID 1 acts on it.
type Notification struct {
	Ready    bool    // READY=1
	Watchdog bool    // WATCHDOG=1
	Stopping bool    // STOPPING=1
	Status   string  // STATUS=…, shortened
	Request  Request // X_OSCINE=…
}

// ParseNotification reads a datagram; lines it does not know are skipped.
func ParseNotification(datagram []byte) Notification {
	var n Notification
	for line := range bytes.SplitSeq(datagram, []byte("\n")) {
		key, value, _ := bytes.Cut(line, []byte("="))
		one := string(value) == "1"
		switch string(key) {
		case "READY":
			n.Ready = n.Ready || one
		case "WATCHDOG":
			n.Watchdog = n.Watchdog || one
		case "STOPPING":
			n.Stopping = n.Stopping || one
		case "STATUS":
			n.Status = string(value[:min(len(value), maxStatus)])
		case "X_OSCINE":
			if r := Request(value); r == RequestReboot || r == RequestPowerOff {
				n.Request = r
			}
		}
	}
	return n
}

// notified is a Notification and the process the kernel says it came from.
type notified struct {
	pid int
	Notification
}

// listenNotify binds the socket at path and sends what arrives to messages
// until the socket is closed; it returns the socket.
func listenNotify(log *Log, path string, messages chan<- notified) (int, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return -1, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("notify socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("notify socket %s: %w", path, err), unix.Close(fd))
	}
	background(log, "notify socket", func() error { return receiveNotify(fd, messages) })
	return fd, nil
}

func receiveNotify(fd int, messages chan<- notified) error {
	data := make([]byte, maxNotification)
	control := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	for {
		n, controlLen, _, _, err := unix.Recvmsg(fd, data, control, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if pid := senderPID(control[:controlLen]); pid > 0 {
			messages <- notified{pid, ParseNotification(data[:n])}
		}
	}
}

// senderPID is the sender's process as the kernel vouches for it; 0 if unknown.
func senderPID(control []byte) int {
	parsed, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0
	}
	for i := range parsed {
		if cred, err := unix.ParseUnixCredentials(&parsed[i]); err == nil {
			return int(cred.Pid)
		}
	}
	return 0
}
