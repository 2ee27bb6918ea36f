package cli

import (
	"fmt"
	"io"
	"os"
	"time"

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

	renewalTold bool // that the certificate is near its end
}

// configPath returns the client configuration's path.
func (e *Env) configPath() (string, error) {
	if e.ConfigPath != "" {
		return e.ConfigPath, nil
	}
	return client.DefaultPath(os.Getenv)
}

// clientConfig reads the client configuration. One that was named has to be
// there; of the default one there need be none yet.
func (e *Env) clientConfig() (*client.Config, error) {
	path, err := e.configPath()
	if err != nil {
		return nil, err
	}
	named := ""
	switch {
	case e.ConfigPath != "":
		named = "--config"
	case os.Getenv("OSCINE_CONFIG") != "":
		named = "OSCINE_CONFIG"
	}
	if _, err := os.Stat(path); named != "" && err != nil {
		return nil, fmt.Errorf("%s: %w", named, unreadable(path, err))
	}
	return client.Load(path)
}

// context returns the chosen context with its name.
func (e *Env) context() (string, *client.Context, error) {
	config, err := e.clientConfig()
	if err != nil {
		return "", nil, err
	}
	return config.Context(e.Context)
}

// Client returns a client of the chosen context's node. It dials on the first
// call. A certificate near its end is renewed before; see fresh.
func (e *Env) Client() (*client.Client, error) {
	name, ctx, err := e.context()
	if err != nil {
		return nil, err
	}
	return client.New(e.fresh(name, ctx, time.Now()))
}

// authorityClient is Client for the holder of the authority, who also reaches a node
// whose certificate has expired. shown is what the node shows.
func (e *Env) authorityClient() (node *client.Client, shown *client.Shown, err error) {
	name, ctx, err := e.context()
	if err != nil {
		return nil, nil, err
	}
	return client.NewForAuthority(e.fresh(name, ctx, time.Now()))
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
