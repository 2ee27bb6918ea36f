package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/configuration"
	"oscine.dev/oscine/internal/kmod"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/sysctl"
)

// configurationsDir is the folder of the configurations that the node had, in the
// state folder.
const configurationsDir = "configurations"

// errStartAgain says that the daemon is to start again, with another Machine.
// Workloads and engine workers go on meanwhile.
var errStartAgain = errors.New("the configuration has changed")

func (o *options) configurationPaths() configuration.Paths {
	given := o.config
	if given == "" {
		given = release.FirmwareMachine
	}
	return configuration.Paths{Machine: o.storedMachine(), History: filepath.Join(o.state, configurationsDir), Given: given}
}

func (o *options) openConfigurations(log *slog.Logger) *configuration.Store {
	check := func(machine *object.Machine) error {
		return errors.Join(checkMachine(machine), o.checkEncryption(machine))
	}
	if o.hosted {
		check = o.checkEncryption // the host's network and kernel are not ours
	}
	return configuration.Open(o.configurationPaths(), check, log)
}

// replaced reports that the Machine given from outside was replaced by one that
// was applied.
func (o *options) replaced() bool { return configuration.Replaced(o.configurationPaths()) }

// withoutIdentity is a Machine without the key and the certificate that lie beside
// it in the state folder.
func (o *options) withoutIdentity(machine *object.Machine) *object.Machine {
	own := *machine
	for file, field := range map[string]*string{keyFile: &own.Spec.API.Key, certificateFile: &own.Spec.API.Certificate} {
		if text, err := os.ReadFile(filepath.Join(o.state, file)); err == nil && string(text) == *field {
			*field = ""
		}
	}
	return &own
}

// checkMachine finds what this machine and its kernel do not have.
func checkMachine(machine *object.Machine) error {
	err := sysctl.Check(sysctl.Kernel, machine.Spec.Sysctls)
	if err != nil {
		err = fmt.Errorf("spec.sysctls: %w", err)
	}
	modules := kmod.Running().Check(machine.Spec.KernelModules)
	if modules != nil {
		modules = fmt.Errorf("spec.kernelModules: %w", modules)
	}
	return errors.Join(err, modules, checkInterfaces(machine))
}

// checkInterfaces finds interfaces that this machine does not have.
func checkInterfaces(machine *object.Machine) error {
	present, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var names []string
	for _, p := range present {
		if p.HardwareAddr != nil {
			names = append(names, p.Name+" ("+p.HardwareAddr.String()+")")
		}
	}
	interfaces := machine.Spec.Network.Interfaces
	created := func(name string) bool {
		return slices.ContainsFunc(interfaces, func(in object.Interface) bool { return in.Name == name && (in.VLAN != nil || in.Bond != nil) })
	}
	var errs []error
	need := func(at, name, mac string) {
		if created(name) || slices.ContainsFunc(present, func(p net.Interface) bool {
			return p.Name == name || mac != "" && strings.EqualFold(p.HardwareAddr.String(), mac)
		}) {
			return
		}
		errs = append(errs, fmt.Errorf("spec.network.interfaces%s: this machine has no interface %s%s: it has %s", at, name, mac, strings.Join(names, ", ")))
	}
	for i, in := range interfaces {
		need(fmt.Sprintf("[%d]", i), in.Name, in.MAC)
		if in.VLAN != nil {
			need(fmt.Sprintf("[%d].vlan.link", i), in.VLAN.Link, "")
		}
		if in.Bond != nil {
			for j, name := range in.Bond.Interfaces {
				need(fmt.Sprintf("[%d].bond.interfaces[%d]", i, j), name, "")
			}
		}
	}
	return errors.Join(errs...)
}

// followConfigurations returns errStartAgain once the daemon is to start with
// another Machine.
func followConfigurations(ctx context.Context, s *configuration.Store) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.Watch(ctx) })
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-s.Restart():
			return errStartAgain
		}
	})
	return g.Wait()
}

// configurationFailed has the daemon start again, and return to the Machine before,
// when it cannot work with the one on trial.
func configurationFailed(s *configuration.Store, err error) error {
	if err != nil && !errors.Is(err, errStartAgain) && s.OnTrial() != 0 {
		return fmt.Errorf("%w, and the node fails with it: %w", errStartAgain, err)
	}
	return err
}

// startAgain replaces this process by a new start of the daemon. init and the host's
// supervisor see the same process.
func startAgain(environment []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find my own program: %w", err)
	}
	return os.NewSyscallError("execve", unix.Exec(self, os.Args, environment))
}
