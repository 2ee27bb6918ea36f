package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"oscine.dev/oscine/internal/durable"
)

// Mirror names servers that hold the images of a registry too.
type Mirror struct {
	Registry  string   // its host, such as docker.io; * for all that have no entry
	Endpoints []string // URLs, asked in this order
	// SkipFallback asks the endpoints alone, and never the registry itself.
	SkipFallback bool
}

// hostsDir is where the mirrors are written for containerd; see its hosts.toml.
func (c *Config) hostsDir() string { return filepath.Join(c.State, "hosts") }

// writeMirrors replaces what an earlier start has written.
func (c *Config) writeMirrors() error {
	if err := os.RemoveAll(c.hostsDir()); err != nil {
		return fmt.Errorf("write the registry mirrors: %w", err)
	}
	for _, m := range c.Mirrors {
		dir := filepath.Join(c.hostsDir(), m.folder())
		if err := errors.Join(os.MkdirAll(dir, 0o700), durable.WriteFile(filepath.Join(dir, "hosts.toml"), m.hosts(), 0o600)); err != nil {
			return fmt.Errorf("write the registry mirrors: %w", err)
		}
	}
	return nil
}

func (m *Mirror) folder() string {
	if m.Registry == "*" {
		return "_default"
	}
	if i := strings.LastIndexByte(m.Registry, ':'); i > strings.LastIndexByte(m.Registry, ']') { // not one inside an IPv6 address
		return m.Registry[:i] + "_" + m.Registry[i+1:] + "_"
	}
	return m.Registry
}

func (m *Mirror) hosts() []byte {
	var b strings.Builder
	endpoints := m.Endpoints
	if m.SkipFallback && len(endpoints) > 0 { // what is called server is asked last
		last := len(endpoints) - 1
		fmt.Fprintf(&b, "server = %q\n", endpoints[last])
		endpoints = endpoints[:last]
	}
	for _, e := range endpoints {
		fmt.Fprintf(&b, "[host.%q]\ncapabilities = [\"pull\", \"resolve\"]\n", e)
	}
	return []byte(b.String())
}
