package journal

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// drainTime is how long a sink goes on after SIGTERM, for what is still in its
// pipes.
const drainTime = 2 * time.Second

// Sink is the whole of the program that a container's shim starts to keep the
// container's output: it reads standard output from descriptor 3 and standard
// error from 4, closes 5 when it is ready, and ends when both have ended. args
// are pairs: path FILE, and bytes N.
//
// Source: containerd, "Runtime v2", section Logging.
func Sink(args []string) error {
	path, bytes, err := sinkArgs(args)
	if err != nil {
		return err
	}
	// One of these runs per container, and its only garbage is line buffers.
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(4 << 20)

	w, err := Open(path, bytes)
	if err != nil {
		return err
	}
	defer w.Close()

	// The shim's end is not the container's: only the end of the pipes counts.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)

	ready := os.NewFile(5, "ready")
	if _, err := ready.Write([]byte{1}); err != nil {
		return fmt.Errorf("tell the shim: %w", err)
	}
	ready.Close()

	var streams sync.WaitGroup
	for fd, stream := range map[uintptr]Stream{3: Stdout, 4: Stderr} {
		streams.Go(func() { w.Copy(stream, os.NewFile(fd, string(stream))) })
	}
	ended := make(chan struct{})
	go func() { streams.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-stop:
		select {
		case <-ended:
		case <-time.After(drainTime):
		}
	}
	return nil
}

func sinkArgs(args []string) (path string, bytes int64, err error) {
	if len(args)%2 != 0 {
		return "", 0, errors.New("arguments must be pairs: path FILE bytes N")
	}
	for i := 0; i < len(args); i += 2 {
		switch args[i] {
		case "path":
			path = args[i+1]
		case "bytes":
			if bytes, err = strconv.ParseInt(args[i+1], 10, 64); err != nil || bytes < 0 {
				return "", 0, fmt.Errorf("bytes must be a number, got %q", args[i+1])
			}
		default:
			return "", 0, fmt.Errorf("unknown argument %q", args[i])
		}
	}
	if path == "" {
		return "", 0, errors.New("path is missing")
	}
	return path, bytes, nil
}
