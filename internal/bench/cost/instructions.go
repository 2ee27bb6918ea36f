package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vishvananda/netlink"

	"oscine.dev/oscine/internal/bench/guest"
	"oscine.dev/oscine/internal/serve/engine"
)

// Names of files in the guest.
const (
	guestWorker   = "oscine-engine"
	guestFasthttp = "fasthttp"
)

// countInstructions measures in a guest whose clock counts instructions: those of the
// kernel for a process count too. The load of the host changes nothing.
func countInstructions(ctx context.Context, rounds int, out, progress io.Writer) error {
	dir, err := os.MkdirTemp("", "oscine-cost-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p, err := buildPrograms(ctx, dir, progress)
	if err != nil {
		return err
	}
	if p.missing != nil {
		fmt.Fprintf(progress, "cost: fasthttp echo is left out: %v\n", p.missing)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	files := map[string]string{guestWorker: p.worker, filepath.Base(p.library): p.library}
	if p.fasthttp != "" {
		files[guestFasthttp] = p.fasthttp
	}
	for _, file := range []string{self, p.library} {
		if err := addLibraries(ctx, files, file); err != nil {
			return err
		}
	}
	return guest.Run(ctx, guest.Options{Init: self, Args: []string{strconv.Itoa(rounds)}, Files: files, CPUs: "2", Memory: 1024, ICount: true}, out)
}

// addLibraries adds what the host's loader finds for a program or library, and the
// loader.
func addLibraries(ctx context.Context, files map[string]string, file string) error {
	list, err := exec.CommandContext(ctx, "ldd", file).Output()
	if err != nil {
		return fmt.Errorf("ldd %s: %w", file, err)
	}
	for word := range strings.FieldsSeq(string(list)) {
		if filepath.IsAbs(word) {
			files[strings.TrimPrefix(word, "/")] = word
		}
	}
	return nil
}

// runGuest is the whole program where it is the guest's init.
func runGuest() {
	if !guest.Inside() || os.Getpid() != 1 {
		return
	}
	guest.Main(func() int {
		rounds, err := strconv.Atoi(os.Args[1])
		if err == nil {
			err = inside(context.Background(), rounds, os.Stdout)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "cost:", err)
			return 1
		}
		return 0
	})
}

// inside is the guest's part.
func inside(ctx context.Context, rounds int, out io.Writer) error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	if err := guest.WaitIdle(time.Minute); err != nil {
		return err
	}
	p := programs{worker: "/" + guestWorker, library: "/" + engine.All()[onnxName].Library}
	if _, err := os.Stat("/" + guestFasthttp); err == nil {
		p.fasthttp = "/" + guestFasthttp
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	b := &bench{ctx: ctx, dir: "/tmp", progress: io.Discard, rounds: rounds, turn: 50 * time.Millisecond, figures: figures{}}
	defer b.stop()
	if err := b.startAll(p, smallName); err != nil {
		return err
	}
	if err := b.coldStarts(smallName); err != nil {
		return err
	}
	if err := b.addOther(smallName); err != nil {
		return err
	}
	if err := b.measureAll(); err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	b.printWays(w, "instructions of the servers for one request, one client", "thousands")
	return w.Flush()
}
