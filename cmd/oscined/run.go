package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"oscine.dev/oscine/internal/api"
	"oscine.dev/oscine/internal/encryption"
	"oscine.dev/oscine/internal/journal"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/network"
	"oscine.dev/oscine/internal/node"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/version"
)

func run(ctx context.Context, args []string, errOut io.Writer) error {
	o, err := parseOptions(args, errOut)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case o.version:
		fmt.Fprintln(errOut, version.Version)
		return nil
	}
	if err := o.makeFolders(); err != nil {
		return err
	}
	log, own := openLog(o, errOut)
	o.releaseLog = own.Release
	environment := os.Environ() // without what the Machine adds
	err = runNode(ctx, o, errOut, log)
	own.Close()
	if errors.Is(err, errStartAgain) && ctx.Err() == nil {
		return startAgain(environment)
	}
	return err
}

func (o *options) makeFolders() error {
	for _, dir := range []string{o.state, o.run, o.logs} {
		// Workloads have user ids of their own, which must reach what lies below.
		if err := errors.Join(os.MkdirAll(dir, 0o711), os.Chmod(dir, 0o711)); err != nil {
			return fmt.Errorf("make the daemon's folders: %w", err)
		}
	}
	return nil
}

// openLog returns the daemon's log, on errOut and in its journal.
func openLog(o *options, errOut io.Writer) (*slog.Logger, *journal.Writer) {
	own := journal.Open(filepath.Join(o.logs, "oscined.log"), ownLogBytes)
	level := slog.LevelInfo
	if o.debug {
		level = slog.LevelDebug
	}
	out := io.MultiWriter(errOut, &journalWriter{journal: own, errOut: errOut})
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level})), own
}

// ownLogBytes bounds the daemon's own log on disk.
const ownLogBytes = 4 << 20

// journalWriter keeps each line of the daemon in its journal. A full disk must
// not stop the daemon: that lines are lost is said once, where they still appear.
type journalWriter struct {
	journal *journal.Writer
	errOut  io.Writer
	failing atomic.Bool
}

func (w *journalWriter) Write(p []byte) (int, error) {
	err := w.journal.Append(journal.Line{Time: time.Now(), Stream: journal.Stderr, Text: string(p[:max(len(p)-1, 0)])})
	if !w.failing.Swap(err != nil) && err != nil {
		fmt.Fprintf(w.errOut, "oscined: the daemon's log is not kept on the disk: %v\n", err)
	}
	return len(p), nil
}

func runNode(ctx context.Context, o *options, console io.Writer, log *slog.Logger) error {
	g, ctx := errgroup.WithContext(ctx)
	if files, err := raiseFiles(); err != nil {
		log.Warn("open files are few", "limit", files, "error", err)
	}
	limitMemory(log)
	alive := &pulse{log: log}
	alive.starting()
	g.Go(func() error { return alive.run(ctx) })
	if !o.hosted {
		if err := encryption.Close(); err != nil {
			log.Error("what runs here could ask the TPM for the key of a data partition", "error", err)
		}
		if locked := o.facts().Locked; locked != "" {
			return awaitUnlock(ctx, o, locked, console, alive, log)
		}
	}
	configurations := o.openConfigurations(log)
	machine, err := findMachine(o, log)
	if errors.Is(err, errNoCertificate) || err != nil && o.config == "" {
		machine, err = awaitMachine(ctx, o, machine, err, console, alive, log)
	}
	if err != nil {
		return err
	}
	if err := configurations.Use(o.withoutIdentity(machine)); err != nil {
		log.Error("cannot keep the history of the Machine", "error", err)
	}
	o.setEnvironment(machine, log)
	var networkState func() network.State
	if !o.hosted {
		network := network.New(network.Config{Hostname: machine.Spec.Hostname, Net: machine.Spec.Network, Time: machine.Spec.Time}, log)
		g.Go(func() error { return network.Run(ctx) })
		networkState = network.State
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find my own program: %w", err)
	}
	n, err := node.Open(ctx, node.Config{
		Mode: o.mode(), Version: version.Version, Slot: o.facts().Slot,
		StateDir: o.state, RunDir: o.run, LogDir: o.logs,
		RuntimePath: o.runtime, ShimPath: o.shim, LoggerPath: o.logger,
		BenchCommand: []string{self, benchChild}, Reboot: rebooter(o), Upgrading: o.upgrading(), Logger: log,
		Configurations: configurations, Network: networkState,
	}, machine)
	if err != nil {
		return configurationFailed(configurations, err)
	}
	limitMemory(log) // the node has put this process into its class
	// What may be refused comes before the API, over which a client confirms a
	// changed Machine.
	open, err := openPorts(o, n, machine, log)
	if err != nil {
		return errors.Join(configurationFailed(configurations, err), n.Close())
	}
	for _, port := range open {
		g.Go(func() error { return port.serve(ctx) })
	}
	g.Go(func() error { return serveAPI(ctx, o, n, machine, alive, log) })
	g.Go(func() error { return followConfigurations(ctx, configurations) })
	err = configurationFailed(configurations, g.Wait())
	_ = notify(release.Notification{Stopping: true}) // only a courtesy
	return errors.Join(err, n.Close())
}

func serveAPI(ctx context.Context, o *options, n *node.Node, machine *object.Machine, alive *pulse, log *slog.Logger) error {
	server := api.NewServer(n, log)
	address := o.listen
	if address == "" {
		address = listenAddress(o, machine.Spec.API.Port)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen for the API: %w: choose another with spec.api.port or --listen", err)
	}
	n.MarkReady()
	alive.provenBy(server.Answers)
	log.Info("oscined: API on " + l.Addr().String())
	up := release.Notification{Ready: true}
	if n.Upgrades().Pending() {
		up.Trial = release.TrialPending
	}
	if err := notify(up); err != nil && !errors.Is(err, linux.ErrNoSupervisor) {
		log.Warn("cannot tell init that the node is ready", "error", err)
	}
	return server.Serve(ctx, l)
}

// listenAddress is every address on a machine that is ours, and loopback on
// one that is not.
func listenAddress(o *options, port int) string {
	host := ""
	if o.hosted {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// notify tells init.
func notify(n release.Notification) error { return linux.Notify(n.String()) }

// rebooter asks init, which alone may stop the machine.
func rebooter(o *options) func(bool) error {
	if o.hosted {
		return nil
	}
	return func(powerOff bool) error {
		request := release.RequestReboot
		if powerOff {
			request = release.RequestPowerOff
		}
		return notify(release.Notification{Request: request})
	}
}
