package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/release"
)

const maxNotification = 4096 // bytes

// notified is a Notification and the process the kernel says it came from.
type notified struct {
	pid int
	release.Notification
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
			messages <- notified{pid, release.ParseNotification(string(data[:n]))}
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
