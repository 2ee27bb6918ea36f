package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

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
	// Non-blocking, so that the runtime's poller waits and Close ends a read.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("read the kernel's messages: %w", err)
	}
	defer f.Close()
	if o.New {
		_, err = f.Seek(0, io.SeekEnd)
	}
	if !o.Follow && err == nil {
		// A read that would wait returns at once.
		err = f.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	}
	if err != nil {
		return fmt.Errorf("read the kernel's messages: %w", err)
	}
	defer context.AfterFunc(ctx, func() { f.Close() })()
	record := make([]byte, maxKernelRecord)
	for {
		n, err := f.Read(record)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.EPIPE):
			continue // some were overwritten
		case !o.Follow && (errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF)):
			return nil
		case err != nil:
			return fmt.Errorf("read the kernel's messages: %w", err)
		}
		if err := each(string(record[:n])); err != nil {
			return err
		}
	}
}
