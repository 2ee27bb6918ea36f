package hardware

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Event is a change of a device that the kernel announces.
type Event struct {
	Action    string // add, remove, change, bind, unbind, online, offline, move
	Subsystem string // pci, net, drm, cpu, …
	Path      string // below /sys, as /devices/pci0000:00/0000:00:02.0
	Name      string // DEVNAME, empty without a device node
}

// maxUevent is the kernel's own bound of a message, UEVENT_BUFFER_SIZE.
const maxUevent = 16 << 10

// parseUevent reads "add@/devices/…" and the NUL-separated variables behind.
// See lib/kobject_uevent.c.
func parseUevent(message []byte) (Event, bool) {
	fields := strings.Split(string(message), "\x00")
	action, path, ok := strings.Cut(fields[0], "@")
	if !ok || !strings.HasPrefix(path, "/") || strings.Contains(path, "..") || action == "" {
		return Event{}, false
	}
	e := Event{Action: action, Path: path}
	for _, f := range fields[1:] {
		key, value, _ := strings.Cut(f, "=")
		switch key {
		case "SUBSYSTEM":
			e.Subsystem = value
		case "DEVNAME":
			e.Name = value
		}
	}
	return e, true
}

// eventLost is the action of an event that stands for those that were lost.
const eventLost = "lost"

// ListenEvents delivers the kernel's events until the context ends. Where
// events come faster than they are taken, an eventLost says so.
func ListenEvents(ctx context.Context) (<-chan Event, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("listen to device events: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20) // less memory only means more eventLost
	const kernelGroup = 1
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		return nil, errors.Join(fmt.Errorf("listen to device events: %w", err), unix.Close(fd))
	}
	f := os.NewFile(uintptr(fd), "uevent")
	events := make(chan Event, 64)
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	go func() {
		defer close(events)
		defer stop()
		buf := make([]byte, maxUevent)
		for {
			n, err := f.Read(buf)
			e, ok := Event{Action: eventLost}, errors.Is(err, unix.ENOBUFS)
			if err != nil && !ok {
				return
			}
			if err == nil {
				if e, ok = parseUevent(buf[:n]); !ok {
					continue
				}
			}
			select {
			case events <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return events, nil
}
