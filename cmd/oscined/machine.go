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
	"oscine.dev/oscine/internal/attest"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/network"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/release"
)

// maintenancePort is where a node without configuration waits for it.
const maintenancePort = 7443

// errNeverConfigured is returned by findMachine for a node that has no
// configuration and never had one. Every other error means that it has an
// owner.
var errNeverConfigured = errors.New("no configuration")

// findMachine returns the node's configuration: the given file, or on the
// image what the hypervisor hands over, or what was stored. With errNoCertificate
// there is one.
func findMachine(o *options, log *slog.Logger) (*object.Machine, error) {
	sources := []string{release.FirmwareMachine, o.storedMachine()}
	switch {
	case o.replaced():
		sources = sources[1:]
	case o.config != "":
		machine, err := o.readMachine(o.config)
		if machine != nil {
			err = errors.Join(err, o.checkEncryption(machine))
		}
		return machine, err
	}
	var unreadable []error
	for _, path := range sources {
		machine, err := o.readMachine(path)
		if err == nil || errors.Is(err, errNoCertificate) {
			log.Info("configuration read", "from", path)
			refused := o.encrypt(machine, path == o.storedMachine(), log)
			o.rememberAuthority(machine, log)
			if refused != nil {
				return nil, fmt.Errorf("%s: %w", path, refused)
			}
			return machine, err
		}
		if !errors.Is(err, os.ErrNotExist) {
			unreadable = append(unreadable, err)
		}
	}
	switch {
	case len(unreadable) > 0:
		return nil, errors.Join(unreadable...)
	case o.authority() != "":
		return nil, fmt.Errorf("%s is gone, although this node was configured", o.storedMachine())
	case o.facts().Data == "":
		return nil, errors.New("the data partition is not mounted, so it is unknown whether this node was configured")
	}
	return nil, errNeverConfigured
}

func (o *options) storedMachine() string { return filepath.Join(o.state, release.MachineFile) }

// maintenance is how the node waits for a configuration, or for the certificate
// that the one it has lacks. why is findMachine's error: only a node that was
// never configured takes a configuration from anyone.
func (o *options) maintenance(found *object.Machine, why error, log *slog.Logger) (*api.Maintenance, error) {
	key, err := o.ownKey()
	if err != nil {
		return nil, err
	}
	m := &api.Maintenance{Key: key, Logger: log, TPM: hasTPM(log), Store: func(manifest string) error { return o.keep(manifest, log) }}
	switch {
	case errors.Is(why, errNoCertificate):
		m.Closed, m.Authority, m.Code = errNoCertificate.Error(), found.Spec.API.CA, consoleCode()
		m.Token = found.Spec.API.JoinToken
	case !errors.Is(why, errNeverConfigured):
		log.Error("the configuration is refused", "error", why)
		m.Closed, m.Authority, m.Code = "this node has an owner, but cannot read its configuration", o.authority(), consoleCode()
		if errors.Is(why, errEncryption) {
			m.Closed = "this node cannot use its configuration: " + why.Error()
		}
	}
	return m, nil
}

// hasTPM reports whether the machine has one that attests it.
func hasTPM(log *slog.Logger) bool {
	tpm, err := attest.Open()
	if err != nil {
		if !errors.Is(err, attest.ErrNoTPM) {
			log.Warn("the TPM", "error", err)
		}
		return false
	}
	return tpm.Close() == nil
}

// awaitMachine waits in maintenance mode for someone to send the configuration,
// and stores it. On the image it does so on every address that DHCP gives, or as
// the configuration says that lacks nothing but a certificate.
func awaitMachine(ctx context.Context, o *options, found *object.Machine, why error, console io.Writer, alive *pulse, log *slog.Logger) (*object.Machine, error) {
	m, err := o.maintenance(found, why, log)
	if err != nil {
		return nil, err
	}
	fingerprint, err := m.Fingerprint()
	if err != nil {
		return nil, err
	}
	address, link := o.listen, network.Config{Hostname: "oscine"}
	port := maintenancePort
	if found != nil {
		link = network.Config{Hostname: found.Spec.Hostname, Net: found.Spec.Network, Time: found.Spec.Time}
		port = found.Spec.API.Port
	}
	if address == "" {
		address = listenAddress(o, port)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for a configuration: %w", err)
	}
	log.Warn("waiting for a configuration in maintenance mode", "address", l.Addr().String(), "fingerprint", fingerprint, "closed", m.Closed)
	showOnConsole(console, m, fingerprint)
	for _, n := range o.waits(m.Closed != "", found != nil, why) {
		if err := notify(n); err != nil && !errors.Is(err, linux.ErrNoSupervisor) {
			log.Warn("cannot tell init how the node waits", "error", err)
		}
	}
	machine, err := o.serveMaintenance(ctx, m, l, link, alive, log)
	if err != nil {
		return nil, err
	}
	if o.config != "" {
		return o.readMachine(o.config)
	}
	o.rememberAuthority(machine, log)
	return machine, o.identify(machine)
}

// serveMaintenance answers until what the node waits for has come.
func (o *options) serveMaintenance(ctx context.Context, m *api.Maintenance, l net.Listener, link network.Config, alive *pulse, log *slog.Logger) (*object.Machine, error) {
	ctx, cancel := context.WithCancel(ctx)
	var up sync.WaitGroup
	defer up.Wait()
	defer cancel()
	if !o.hosted {
		up.Go(func() {
			if err := network.New(link, log).Run(ctx); err != nil && ctx.Err() == nil {
				log.Error("network", "error", err)
			}
		})
	}
	alive.provenBy(m.Answers)
	machine, err := m.Serve(ctx, l)
	alive.starting()
	return machine, err
}

// waits is what init is told while the node waits, in this order: init goes back at
// the first where there is a version before, which had what this one lacks, and
// only where there is none does it come to READY.
func (o *options) waits(closed, found bool, why error) (all []release.Notification) {
	if closed && o.facts().Trial {
		all = append(all, release.Notification{Trial: release.TrialFailed, Status: "it cannot read the node's configuration: " + why.Error()})
	}
	if !closed || found || errors.Is(why, errEncryption) {
		// A machine without any configuration, or a certificate, or with a configuration
		// that is not for it, works as well as it can: starting again helps nobody.
		all = append(all, release.Notification{Ready: true})
	}
	return all
}

// showOnConsole prints what proves to a person that they talk to this node, and
// to the node that the person stands before it. The code is in no log that the
// API shows.
func showOnConsole(console io.Writer, m *api.Maintenance, fingerprint string) {
	fmt.Fprintf(console, "This node waits for its configuration: oscine config apply -f MACHINE.yaml --address HOST\nIts fingerprint is %s\n", fingerprint)
	if m.Closed != "" {
		fmt.Fprintf(console, "%s.\nIts owner configures it with an admin's context, or with --console-code %s\n", m.Closed, m.Code)
	}
}

// readMachine reads a Machine file and completes the node's identity.
func (o *options) readMachine(path string) (*object.Machine, error) {
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
	if err == nil {
		err = o.identify(machine)
	}
	if err != nil {
		return machine, fmt.Errorf("read the Machine file %s:\n%w", path, err)
	}
	return machine, nil
}
