package serving

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// alarm wakes a goroutine at a time, within some microseconds: Go's own timers
// come up to a millisecond late on a machine that idles, which would count as
// the server's latency.
type alarm struct {
	file *os.File
	fd   int
	stop func() bool
}

// newAlarm returns an alarm that rings at once when ctx ends.
func newAlarm(ctx context.Context) (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("set up a timer: %w", err)
	}
	a := &alarm{file: os.NewFile(uintptr(fd), "timer"), fd: fd}
	a.stop = context.AfterFunc(ctx, func() { _ = a.file.SetReadDeadline(time.Unix(1, 0)) }) // fails for a closed one only
	return a, nil
}

// until sleeps to a time, or not at all where it has passed.
func (a *alarm) until(t time.Time) error {
	left := time.Until(t)
	if left <= 0 {
		return nil
	}
	if err := unix.TimerfdSettime(a.fd, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(left))}, nil); err != nil {
		return fmt.Errorf("set a timer: %w", err)
	}
	var rings [8]byte
	_, err := a.file.Read(rings[:])
	return err
}

func (a *alarm) close() {
	a.stop()
	_ = a.file.Close() // nothing was written
}
