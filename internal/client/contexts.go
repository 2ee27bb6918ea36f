package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"go.yaml.in/yaml/v3"

	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/durable"
)

// maxBytes bounds the file: about a thousand contexts.
const maxBytes = 4 << 20

// ErrNoContext is returned where no context was chosen and none is current.
var ErrNoContext = errors.New("no context is chosen")

// Config is the whole file.
type Config struct {
	Current  string              `yaml:"current,omitempty"`
	Contexts map[string]*Context `yaml:"contexts,omitempty"`
}

// Context is one node and the credentials for it, PEM.
type Context struct {
	Address    string `yaml:"address"`             // host:port of the API
	ServerName string `yaml:"serverName"`          // name that the node's certificate carries
	Inference  string `yaml:"inference,omitempty"` // base URL of an open inference endpoint
	// AttestationKey is the fingerprint of the key of the node's TPM, known since
	// the first oscine attest; empty before.
	AttestationKey string `yaml:"attestationKey,omitempty"`
	// AttestationPCR7 is the register 7 of that TPM, hex, known since the first oscine
	// attest that found what it expected; empty before.
	AttestationPCR7 string `yaml:"attestationPCR7,omitempty"`
	// Authority is the folder on this computer with the authority's certificate and
	// key, by which the certificate is renewed; empty where the person has none.
	Authority string `yaml:"authority,omitempty"`

	CA          string `yaml:"ca"`
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
	// RenewalKey is the key of the certificate for which the person has asked the
	// node, PEM; empty if none is asked for.
	RenewalKey string `yaml:"renewalKey,omitempty"`
}

// DefaultPath returns $OSCINE_CONFIG, or oscine/config under
// $XDG_CONFIG_HOME, by default ~/.config.
func DefaultPath(getenv func(string) string) (string, error) {
	if p := getenv("OSCINE_CONFIG"); p != "" {
		return p, nil
	}
	if dir := getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "oscine", "config"), nil
	}
	home := getenv("HOME")
	if home == "" {
		return "", errors.New("neither OSCINE_CONFIG nor HOME is set: say where the client configuration is with --config FILE")
	}
	return filepath.Join(home, ".config", "oscine", "config"), nil
}

// Load reads the file; a missing file is an empty Config.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return &Config{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the client configuration: %w", err)
	}
	defer f.Close()
	raw, err := bounded.ReadAll(f, maxBytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	c := &Config{}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	dec.KnownFields(true)
	if err := dec.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: %w; repair it, or make a new one with oscine config generate", path, err)
	}
	for name, ctx := range c.Contexts {
		if ctx == nil || ctx.Address == "" {
			return nil, fmt.Errorf("read %s: context %q has no address", path, name)
		}
	}
	return c, nil
}

// Save replaces the file atomically; it holds keys, so only its owner may
// read it.
func (c *Config) Save(path string) error {
	raw, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode the client configuration: %w", err)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of the client configuration: %w", err)
	}
	return durable.WriteFile(path, raw, 0o600)
}

// Context returns the named context, or the current one for "".
func (c *Config) Context(name string) (string, *Context, error) {
	if name == "" {
		name = c.Current
	}
	if name == "" {
		return "", nil, fmt.Errorf("%w: make one with oscine config generate, or choose with --context or oscine config use (known: %s)", ErrNoContext, c.list())
	}
	ctx, ok := c.Contexts[name]
	if !ok {
		return "", nil, c.unknown(name)
	}
	return name, ctx, nil
}

// Names returns the contexts' names in order.
func (c *Config) Names() []string {
	names := make([]string, 0, len(c.Contexts))
	for n := range c.Contexts {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// unknown is the error of a name that no context has.
func (c *Config) unknown(name string) error {
	return errdefs.ErrNotFound.WithMessage(fmt.Sprintf("no context is named %q: choose one of %s, or make it with oscine config generate", name, c.list()))
}

func (c *Config) list() string {
	if len(c.Contexts) == 0 {
		return "none"
	}
	return strings.Join(c.Names(), ", ")
}

// Set adds or replaces a context and makes it current.
func (c *Config) Set(name string, ctx *Context) {
	if c.Contexts == nil {
		c.Contexts = map[string]*Context{}
	}
	c.Contexts[name] = ctx
	c.Current = name
}

// Delete removes a context; the current one becomes none.
func (c *Config) Delete(name string) error {
	if _, ok := c.Contexts[name]; !ok {
		return c.unknown(name)
	}
	delete(c.Contexts, name)
	if c.Current == name {
		c.Current = ""
	}
	return nil
}
