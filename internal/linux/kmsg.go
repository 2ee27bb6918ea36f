package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// KernelLogFile is where the kernel's messages are read.
const KernelLogFile = "/dev/kmsg"

// maxKernelRecord is the most that one read of the kernel's log returns, in
// bytes.
const maxKernelRecord = 8192

// KernelLogOptions choose messages; the zero value is all that there are.
type KernelLogOptions struct {
	New    bool // only those that come from now on
	Follow bool // go on until the context ends
}

// KernelLog calls each with the records of the kernel's log at path, such as
// KernelLogFile, the oldest first. Records that were overwritten before they
// were read are left out. It returns each's error, or the context's.
//
// Source: Linux, Documentation/ABI/testing/dev-kmsg.
func KernelLog(ctx context.Context, path string, o KernelLogOptions, each func(record string) error) error {
	// Non-blocking: the runtime's poller waits for what is followed, and Close
	// ends its read; otherwise a read that would have to wait is the end.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("read the kernel's messages: %w", err)
	}
	defer f.Close()
	if o.New {
		if _, err = f.Seek(0, io.SeekEnd); err != nil {
			return fmt.Errorf("read the kernel's messages: %w", err)
		}
	}
	read := f.Read
	if !o.Follow {
		if read, err = readNow(f); err != nil {
			return fmt.Errorf("read the kernel's messages: %w", err)
		}
	}
	defer context.AfterFunc(ctx, func() { f.Close() })()
	record := make([]byte, maxKernelRecord)
	for {
		n, err := read(record)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.EPIPE):
			continue // some were overwritten
		case !o.Follow && (errors.Is(err, unix.EAGAIN) || errors.Is(err, io.EOF)):
			return nil
		case err != nil:
			return fmt.Errorf("read the kernel's messages: %w", err)
		}
		if err := each(string(record[:n])); err != nil {
			return err
		}
	}
}

// readNow reads from f without ever waiting: where there is nothing to read yet
// the error is EAGAIN. No clock decides how much is read.
func readNow(f *os.File) (func([]byte) (int, error), error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	return func(p []byte) (n int, err error) {
		outer := raw.Read(func(fd uintptr) bool {
			for {
				if n, err = unix.Read(int(fd), p); !errors.Is(err, unix.EINTR) {
					return true
				}
			}
		})
		switch {
		case outer != nil:
			return 0, outer
		case err == nil && n == 0:
			return 0, io.EOF
		}
		return max(n, 0), err
	}, nil
}
