package doctor

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"time"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/pattern"
)

func kvm(*prober) (string, error) {
	if err := linux.KVM(); err != nil {
		return "", err
	}
	return "/dev/kvm makes machines; whether a kernel boots in one, oscine machine start finds out", nil
}

var qemuVersionRE = pattern.New(`version (([0-9]+)\.[0-9.]+)`)

// qemu wants version 10: Debian 12's QEMU 7.2 corrupts busy emulated guests.
func qemu(p *prober) (string, error) {
	name := "qemu-system-" + architecture()
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("no %s in PATH", name)
	}
	ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", path, err)
	}
	match := qemuVersionRE.Regexp().FindSubmatch(out)
	if match == nil {
		return "", fmt.Errorf("%s --version says nothing of its version", path)
	}
	if major, err := strconv.Atoi(string(match[2])); err != nil || major < 10 {
		return "", fmt.Errorf("%s is version %s", path, match[1])
	}
	return fmt.Sprintf("%s, version %s", path, match[1]), nil
}

// program looks for a program where a login shell and root's would.
func program(name string) func(*prober) (string, error) {
	return func(*prober) (string, error) {
		for _, path := range []string{name, "/usr/sbin/" + name, "/sbin/" + name, "/usr/local/go/bin/" + name} {
			if found, err := exec.LookPath(path); err == nil {
				return found, nil
			}
		}
		return "", errors.New("not installed")
	}
}
