package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/kmod"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/sysctl"
)

// Files of the run folder for what the Machine sets outside the daemon.
const (
	modulesFile  = "kernelmodules.json" // kernel modules that the Machine had loaded
	sysctlsFile  = "sysctls.json"       // what parameters of the kernel were before
	certificates = "certificates"       // folder of the Machine's authorities
)

// publicAuthorities is where the image has the authorities that everybody trusts.
const publicAuthorities = "/etc/ssl/certs"

// setEnvironment sets what the Machine says of the kernel, of proxies and of
// authorities. It comes before the first connection: Go's libraries read proxies
// and authorities once. What fails is told, and the node goes on without.
func (o *options) setEnvironment(machine *object.Machine, log *slog.Logger) {
	if !o.hosted {
		// First: a module brings parameters of its own.
		if err := kmod.Running().Set(filepath.Join(o.run, modulesFile), machine.Spec.KernelModules); err != nil {
			log.Error("spec.kernelModules of the Machine", "error", err)
		}
		if err := sysctl.Set(sysctl.Kernel, filepath.Join(o.run, sysctlsFile), machine.Spec.Sysctls); err != nil {
			log.Error("spec.sysctls of the Machine", "error", err)
		}
	}
	if err := o.setCertificates(machine.Spec.CACertificates); err != nil {
		log.Error("spec.caCertificates of the Machine", "error", err)
	}
	if p := machine.Spec.Proxy; p != nil {
		if err := errors.Join(setenv("HTTP_PROXY", p.HTTP), setenv("HTTPS_PROXY", p.HTTPS), setenv("NO_PROXY", p.NoProxy)); err != nil {
			log.Error("spec.proxy of the Machine", "error", err)
		}
	}
}

func setenv(name, value string) error {
	if value == "" {
		return nil
	}
	return os.Setenv(name, value)
}

func (o *options) setCertificates(text string) error {
	dir := filepath.Join(o.run, certificates)
	if text == "" {
		return os.RemoveAll(dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the folder of authorities: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(dir, "machine.pem"), []byte(text), 0o644); err != nil {
		return err
	}
	return os.Setenv("SSL_CERT_DIR", publicAuthorities+string(os.PathListSeparator)+dir)
}
