package cli

import (
	"fmt"
	"io"
	"os"

	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
)

// Env is what a command may touch of the world around it.
type Env struct {
	In  io.Reader
	Out io.Writer // results
	Err io.Writer // progress and warnings

	// ConfigPath and Context are the global flags --config and --context;
	// empty means the default path and the current context.
	ConfigPath string
	Context    string

	Kinds object.Table // that the commands know
}

// configPath returns the client configuration's path.
func (e *Env) configPath() (string, error) {
	if e.ConfigPath != "" {
		return e.ConfigPath, nil
	}
	return client.DefaultPath(os.Getenv)
}

// context returns the chosen context with its name.
func (e *Env) context() (string, *client.Context, error) {
	path, err := e.configPath()
	if err != nil {
		return "", nil, err
	}
	if _, err := os.Stat(path); e.ConfigPath != "" && err != nil {
		return "", nil, fmt.Errorf("--config: %w", err)
	}
	config, err := client.Load(path)
	if err != nil {
		return "", nil, err
	}
	return config.Context(e.Context)
}

// Client returns a client of the chosen context's node. It dials on the first
// call.
func (e *Env) Client() (*client.Client, error) {
	_, ctx, err := e.context()
	if err != nil {
		return nil, err
	}
	return client.New(ctx)
}

// knows reports whether a context has the name.
func (e *Env) knows(name string) bool {
	path, err := e.configPath()
	if err != nil {
		return false
	}
	config, err := client.Load(path)
	return err == nil && config.Contexts[name] != nil
}
