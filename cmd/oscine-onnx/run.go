package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/onnx"
)

// Exit statuses.
const (
	exitFailed  = 1
	exitUsage   = 2
	exitRefused = 3 // the model cannot be served
)

func run(args []string, errOut io.Writer) int {
	flags := flag.NewFlagSet("oscine-onnx", flag.ContinueOnError)
	flags.SetOutput(errOut)
	socket := flags.String("socket", "", "Unix `socket` to listen on")
	model := flags.String("model", "", "ONNX model `file`")
	limit := flags.Int("threads", 0, "`number` of threads; 0 means as many as the cpuset has processors")
	library := flags.String("library", "libonnxruntime.so.1", "ONNX Runtime library")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	if *socket == "" || *model == "" || flags.NArg() > 0 {
		fmt.Fprintln(errOut, "oscine-onnx: needs --socket and --model, and no other argument")
		return exitUsage
	}
	err := serve(*socket, *model, *library, *limit, errOut)
	var refused *channel.ModelError
	switch {
	case errors.As(err, &refused):
		fmt.Fprintln(errOut, "oscine-onnx:", err)
		return exitRefused
	case err != nil:
		fmt.Fprintln(errOut, "oscine-onnx:", err)
		return exitFailed
	}
	return 0
}

// spareProcessors is how many of Go's processors the worker has at least. The
// serving thread gives its own up while ONNX Runtime computes and finds another
// when it comes back: with one alone it had to wait for a thread without
// urgency, once for 25 ms.
const spareProcessors = 4

// serve loads the model and answers until it is killed.
func serve(socket, model, library string, limit int, errOut io.Writer) error {
	runtime.GOMAXPROCS(max(spareProcessors, runtime.GOMAXPROCS(0)))
	// Waking late by the default 50 µs would cost more than a small inference.
	// The main thread's children inherit it.
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(errOut, "oscine-onnx: set timer slack:", err)
	}
	threads, err := threads(limit)
	if err != nil {
		return err
	}
	listener, err := channel.Listen(socket)
	if err != nil {
		return err
	}
	var session *onnx.Session
	err = channel.Compute(func() (err error) {
		session, err = open(model, library, threads)
		return err
	})
	if err != nil {
		return errors.Join(&channel.ModelError{Text: err.Error()}, listener.Refuse(err.Error()))
	}
	meta := session.Metadata()
	fmt.Fprintf(errOut, "oscine-onnx: %s serves %s with %d threads\n", meta.Engine, filepath.Base(model), threads)
	return listener.Serve(session)
}

func open(model, library string, threads int) (*onnx.Session, error) {
	info, err := os.Stat(model)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the model file cannot be read: %w", err)
	case !info.Mode().IsRegular():
		return nil, errors.New("the model is not a regular file")
	}
	lib, err := onnx.Load(library)
	if err != nil {
		return nil, err
	}
	return lib.Open(model, threads)
}

// threads counts the processors of this process's cpuset, at most limit unless
// that is 0.
func threads(limit int) (int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, fmt.Errorf("read the cpuset: %w", err)
	}
	n := max(1, set.Count())
	if limit > 0 {
		n = min(n, limit)
	}
	return n, nil
}
