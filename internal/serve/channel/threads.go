package channel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// threadName marks the threads of a worker that compute: the one that serves
// the daemon and those of the engine.
const threadName = "oscine-compute"

// maxThreads bounds how many threads of a worker the daemon looks at.
const maxThreads = 1024

// Compute runs f on a thread of its own name, which the threads that a C
// library creates within it inherit: the daemon then knows by it which threads
// compute. The Go runtime's own threads keep theirs.
func Compute(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		own := swapName([16]byte([]byte(threadName + "\x00\x00")))
		err := f()
		swapName(own)
		done <- err
	}()
	return <-done
}

// NameThread locks the calling goroutine to its thread and names it. The
// thread ends with the goroutine.
func NameThread() {
	runtime.LockOSThread()
	swapName([16]byte([]byte(threadName + "\x00\x00")))
}

// swapName gives the calling thread another name and returns the one it had.
// While a goroutine is locked to it, Go starts further threads from others, so
// that none of its own inherits the name.
func swapName(name [16]byte) (old [16]byte) {
	// Neither can fail; a worker without names is only served less urgently.
	_ = unix.Prctl(unix.PR_GET_NAME, uintptr(unsafe.Pointer(&old)), 0, 0, 0)
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name)), 0, 0, 0)
	return old
}

// Threads returns the threads of the worker that compute, as this process
// numbers them, whatever the worker's own PID namespace says.
func (c *Conn) Threads() ([]int, error) {
	return computing(filepath.Join("/proc", strconv.Itoa(c.pid), "task"))
}

// computing lists the threads below a task folder of procfs that have the name.
func computing(dir string) ([]int, error) {
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if len(tasks) > maxThreads {
		return nil, fmt.Errorf("%s has %d threads, more than %d", dir, len(tasks), maxThreads)
	}
	var tids []int
	for _, task := range tasks {
		name, err := os.ReadFile(filepath.Join(dir, task.Name(), "comm"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has ended
		}
		if err != nil {
			return nil, err
		}
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			return nil, err
		}
		if string(bytes.TrimSpace(name)) == threadName {
			tids = append(tids, tid)
		}
	}
	return tids, nil
}
