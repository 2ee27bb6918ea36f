package linux

import (
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Watchdog is an armed hardware watchdog (Documentation/watchdog/watchdog-api.rst):
// the machine resets unless Pet is called within the timeout.
type Watchdog struct{ file *os.File }

// OpenWatchdog arms the watchdog at path, such as /dev/watchdog, with about the
// given timeout and returns the timeout that the device really has (0 where it
// does not tell). An absent device gives an error that is fs.ErrNotExist.
func OpenWatchdog(path string, timeout time.Duration) (*Watchdog, time.Duration, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, 0, err
	}
	seconds := int32(timeout / time.Second)
	if err := ioctl(int(f.Fd()), unix.WDIOC_SETTIMEOUT, unsafe.Pointer(&seconds)); err != nil {
		// A watchdog with a fixed timeout is still a watchdog.
		if err := ioctl(int(f.Fd()), unix.WDIOC_GETTIMEOUT, unsafe.Pointer(&seconds)); err != nil {
			seconds = 0
		}
	}
	return &Watchdog{f}, time.Duration(seconds) * time.Second, nil
}

// Pet restarts the countdown.
func (w *Watchdog) Pet() error {
	if _, err := w.file.Write([]byte{0}); err != nil {
		return fmt.Errorf("pet %s: %w", w.file.Name(), err)
	}
	return nil
}

// Leave closes the device without disarming it: the countdown goes on, and
// the next process that opens the device takes it over.
func (w *Watchdog) Leave() error { return w.file.Close() }
