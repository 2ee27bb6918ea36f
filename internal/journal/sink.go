package journal

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Sink is the whole of the program that a container's shim starts to keep the
// container's output: it reads standard output from descriptor 3 and standard
// error from 4, writes to 5 when it is ready, and ends with both after SIGTERM, which
// the shim sends when both have ended (and complains if there is nobody to send it to).
// args are pairs, in any order: path FILE, bytes N, owner UID:GID. The owner is
// the container's user: the pipes are given to it, since programs that log to
// /dev/stdout reopen it.
//
// Source: containerd, "Runtime v2", section Logging.
func Sink(args []string) error {
	a, err := parseSinkArgs(args)
	if err != nil {
		return err
	}
	// One of these runs per container, and its only garbage is line buffers.
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(4 << 20)

	w := Open(a.path, a.bytes)
	defer w.Close()
	_ = w.Begin(time.Now()) // on a full disk the next lines are what is missed

	// The shim's end is not the container's: only the end of the pipes counts.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)

	pipes := map[Stream]*os.File{Stdout: os.NewFile(3, "stdout"), Stderr: os.NewFile(4, "stderr")}
	for _, pipe := range pipes {
		if err := pipe.Chown(a.uid, a.gid); err != nil {
			return fmt.Errorf("give the output pipes to the container's user: %w", err)
		}
	}
	ready := os.NewFile(5, "ready")
	if _, err := ready.Write([]byte{1}); err != nil {
		return fmt.Errorf("tell the shim: %w", err)
	}
	ready.Close()

	var streams sync.WaitGroup
	for stream, pipe := range pipes {
		streams.Go(func() { w.Copy(stream, pipe) })
	}
	ended := make(chan struct{})
	go func() { streams.Wait(); close(ended) }()
	parent := os.Getppid()
	alive := time.NewTicker(time.Second)
	defer alive.Stop()
	for {
		select {
		case <-stop:
			// The shim has closed its own ends, so what is left in the pipes has
			// an end; where someone else holds them, it kills us in the end.
			<-ended
			return nil
		case <-alive.C:
			// Without a shim nobody sends the signal. Output may still come.
			if os.Getppid() != parent {
				<-ended
				return nil
			}
		}
	}
}

type sinkArgs struct {
	path     string
	bytes    int64
	uid, gid int // -1 leaves the owner
}

func parseSinkArgs(args []string) (sinkArgs, error) {
	a := sinkArgs{uid: -1, gid: -1}
	if len(args)%2 != 0 {
		return a, errors.New("arguments must be pairs: path FILE bytes N owner UID:GID")
	}
	for i := 0; i < len(args); i += 2 {
		var err error
		switch value := args[i+1]; args[i] {
		case "path":
			a.path = value
		case "bytes":
			a.bytes, err = strconv.ParseInt(value, 10, 63)
		case "owner":
			uid, gid, _ := strings.Cut(value, ":")
			a.uid, err = strconv.Atoi(uid)
			if err == nil {
				a.gid, err = strconv.Atoi(gid)
			}
		default:
			err = errors.New("unknown")
		}
		if err != nil {
			return a, fmt.Errorf("argument %s %q: %w", args[i], args[i+1], err)
		}
	}
	if a.path == "" || a.bytes < 0 {
		return a, errors.New("path is missing, or bytes less than 0")
	}
	return a, nil
}
