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
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// threadName marks the threads of a worker that compute: the one that serves
// the daemon and those of the engine.
const threadName = "oscine-compute"

// maxThreads bounds how many threads of a worker the daemon looks at.
const maxThreads = 1024

// NameThread locks the calling goroutine to its thread and gives that the name
// by which the daemon knows the threads that compute. Threads that a C library
// creates from it inherit the name. The thread ends with the goroutine.
//
// While a goroutine is locked to it, Go starts further threads from others, so
// that none of its own inherits the name.
func NameThread() {
	runtime.LockOSThread()
	name := [16]byte([]byte(threadName + "\x00\x00"))
	// It cannot fail; a worker without names is only served less urgently.
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name)), 0, 0, 0)
}

// Threads returns the threads of the worker that compute, as this process
// numbers them, whatever the worker's own PID namespace says. All threads of the
// worker's children are among them: a child is an engine.
func (c *Conn) Threads() ([]int, error) {
	dir := filepath.Join("/proc", strconv.Itoa(c.pid), "task")
	tids, err := computing(dir)
	if err != nil {
		return nil, err
	}
	children, err := filepath.Glob(filepath.Join(dir, "*", "children"))
	if err != nil {
		return nil, err
	}
	for _, file := range children {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended, or the kernel does not tell
		}
		for child := range strings.FieldsSeq(string(text)) {
			tasks, err := os.ReadDir(filepath.Join("/proc", child, "task"))
			if err != nil {
				continue // it has ended
			}
			for _, task := range tasks {
				tid, err := strconv.Atoi(task.Name())
				if err != nil {
					return nil, err
				}
				tids = append(tids, tid)
			}
		}
		if len(tids) > maxThreads {
			return nil, fmt.Errorf("the worker and its children have more than %d threads", maxThreads)
		}
	}
	return tids, nil
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
