package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"oscine.dev/oscine/internal/node"
	"oscine.dev/oscine/internal/release"
)

// options are the daemon's flags.
type options struct {
	hosted  bool
	config  string // Machine file; empty: the image's own places
	listen  string // address of the API; empty: the Machine's port on all addresses
	state   string
	run     string
	logs    string
	runtime string
	shim    string
	logger  string
	debug   bool
	version bool

	releaseLog func() error // lets go of the daemon's log on disk until its next line
}

func parseOptions(args []string, out io.Writer) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("oscined", flag.ContinueOnError)
	f.SetOutput(out)
	f.Usage = func() {
		fmt.Fprintln(out, "oscined is Oscine's node daemon.\n\nOn the image init starts it without flags. On another Linux, as root:\n  oscined --hosted --config machine.yaml\n\nFlags:")
		f.PrintDefaults()
	}
	f.BoolVar(&o.hosted, "hosted", false, "run on a Linux that is not ours: leave its network, clock and power alone")
	f.StringVar(&o.config, "config", "", "Machine file (oscine config generate makes it)")
	f.StringVar(&o.listen, "listen", "", "address of the API (default: the Machine's port on all addresses; with --hosted on 127.0.0.1)")
	f.StringVar(&o.state, "state", "/var/lib/oscine", "folder for what lasts")
	f.StringVar(&o.run, "run", "/run/oscine", "folder for what a reboot may take")
	f.StringVar(&o.logs, "logs", "/var/log/oscine", "folder for logs")
	f.StringVar(&o.runtime, "runtime", "", "OCI runtime: crun or runc (default: beside oscined, then from PATH)")
	f.StringVar(&o.shim, "shim", "", "containerd-shim-runc-v2 (default: beside oscined, then from PATH)")
	f.StringVar(&o.logger, "logger", "", "oscine-log (default: beside oscined, then from PATH)")
	f.BoolVar(&o.debug, "debug", false, "log more")
	f.BoolVar(&o.version, "version", false, "print the version and end")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q; see oscined --help", f.Arg(0))
	}
	if o.version {
		return o, nil
	}
	return o, o.check()
}

func (o *options) check() error {
	if o.hosted && o.config == "" {
		return errors.New("--hosted needs --config FILE: make one with oscine config generate NAME --with-key")
	}
	if os.Geteuid() != 0 {
		return errors.New("must run as root: it makes cgroups, namespaces and mounts; use sudo")
	}
	var errs []error
	find := func(program *string, names ...string) {
		if *program != "" {
			return
		}
		var err error
		if *program, err = findProgram(names...); err != nil {
			errs = append(errs, err)
		}
	}
	find(&o.runtime, o.runtimeNames()...)
	find(&o.shim, "containerd-shim-runc-v2")
	find(&o.logger, "oscine-log")
	return errors.Join(errs...)
}

// runtimeNames prefers crun on the image, and elsewhere runc, which also
// understands hosts with version 1 or hybrid cgroups.
func (o *options) runtimeNames() []string {
	if o.hosted {
		return []string{"runc", "crun"}
	}
	return []string{"crun", "runc"}
}

// findProgram looks beside the daemon, then in PATH.
func findProgram(names ...string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find my own folder: %w", err)
	}
	for _, name := range names {
		beside := filepath.Join(filepath.Dir(self), name)
		if info, err := os.Stat(beside); err == nil && info.Mode()&0o111 != 0 {
			return beside, nil
		}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is neither beside oscined nor in PATH: make build puts it into out/bin", names[0])
}

func (o *options) mode() node.Mode {
	if o.hosted {
		return node.Hosted
	}
	return node.OnImage
}

// facts are what init reports about this boot; zero where the host is not Oscine's
// image.
func (o *options) facts() release.Facts {
	raw, err := os.ReadFile(filepath.Join(o.run, release.FactsFile))
	if err != nil {
		return release.Facts{}
	}
	return release.ParseFacts(string(raw))
}
