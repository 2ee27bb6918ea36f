package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	"oscine.dev/oscine/internal/api"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/network"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/release"
)

// maintenancePort is where a node without configuration waits for it.
const maintenancePort = "7443"

// findMachine returns the node's configuration: the given file, or on the
// image what the hypervisor hands over, or what was stored; nil where there is
// none.
func findMachine(o *options, log *slog.Logger) (*object.Machine, error) {
	if o.config != "" {
		return readMachine(o.config)
	}
	for _, path := range []string{release.FirmwareMachine, o.storedMachine()} {
		machine, err := readMachine(path)
		if err == nil {
			log.Info("configuration read", "from", path)
			return machine, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			// Asking for a new configuration beats a node that cannot be reached.
			log.Error("the configuration is refused", "error", err)
		}
	}
	return nil, nil
}

func (o *options) storedMachine() string { return filepath.Join(o.state, release.MachineFile) }

// configured reports whether there is a configuration, good or bad.
func (o *options) configured() bool {
	for _, path := range []string{release.FirmwareMachine, o.storedMachine()} {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}

// awaitMachine waits in maintenance mode, on every address that DHCP gives,
// for someone to send the configuration, and stores it.
func awaitMachine(ctx context.Context, o *options, log *slog.Logger) (*object.Machine, error) {
	address := o.listen
	if address == "" {
		address = ":" + maintenancePort
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for a configuration: %w", err)
	}
	if !o.configured() {
		// A machine without any configuration works as well as it can. One that
		// cannot read its own must fall back to the version that could.
		if err := notify(release.Notification{Ready: true}); err != nil && !errors.Is(err, linux.ErrNoSupervisor) {
			log.Warn("cannot tell init that the node is ready", "error", err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var up sync.WaitGroup
	defer up.Wait()
	defer cancel()
	up.Go(func() {
		if err := network.New(network.Config{Hostname: "oscine"}, log).Run(ctx); err != nil && ctx.Err() == nil {
			log.Error("network", "error", err)
		}
	})
	return api.Maintain(ctx, l, func(text string) error { return writeMachine(o.storedMachine(), text) }, log)
}

func readMachine(path string) (*object.Machine, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the Machine file: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, object.MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the Machine file %s: %w", path, err)
	}
	machine, err := object.ParseMachine(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("read the Machine file %s:\n%w", path, err)
	}
	return machine, nil
}

// writeMachine replaces the stored configuration, whole or not at all.
func writeMachine(path, text string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".machine-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(text)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
