package image

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime/debug"
	"strings"

	"oscine.dev/oscine/internal/licence"
)

// program is a Go program of the root.
type program struct {
	pkg      string // import path, or ./folder of this module
	path     string // on the root
	why      string
	optional bool // left out where this module has no such folder
}

const modulePath = "oscine.dev/oscine"

const shimPackage = "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"

var programs = []program{
	{"./cmd/init", "usr/sbin/init", "PID 1: mounts, modules, watchdog, supervises oscined; the same program is stage 1", false},
	{"./cmd/oscined", "usr/bin/oscined", "the node daemon: API, reconciler, containers", false},
	{"./cmd/oscine-log", "usr/bin/oscine-log", "keeps the output of one container in its bounded journal", true},
	{shimPackage, "usr/bin/containerd-shim-runc-v2", "stays beside each container so that it survives a restart of oscined", false},
}

// addProgram puts a built program on the root, with the Go modules in it as
// components.
func (c *content) addProgram(p program, file string) error {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return fmt.Errorf("program %s: %w", p.pkg, err)
	}
	from := "oscine:oscine"
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if m.Replace != nil {
			m = m.Replace
		}
		if m.Path == modulePath {
			continue
		}
		id := c.component(Component{Name: m.Path, Version: m.Version, Kind: "go"})
		if p.pkg == m.Path || strings.HasPrefix(p.pkg, m.Path+"/") {
			from = id
		}
	}
	c.component(Component{Name: licence.Std, Version: strings.TrimPrefix(info.GoVersion, "go"), Kind: "go"})
	return c.copy(p.path, file, p.why, from, 0o755)
}

// sourceDir finds the source of this module from dir upwards.
func sourceDir(dir string) (string, error) {
	start, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for d := start; ; d = filepath.Dir(d) {
		text, err := os.ReadFile(filepath.Join(d, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module "+modulePath+"\n") {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("%s is not inside the source of Oscine: run this in its checkout, or name it with --source", start)
		}
	}
}

// buildPrograms compiles the programs for arch into dir and returns those that
// exist. It needs the go command; its build cache makes the second time quick.
func buildPrograms(ctx context.Context, source, arch, version, dir string) ([]program, error) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		return nil, errors.New("the go command is needed to build Oscine's own programs: install Go, or give built ones with --programs")
	}
	args := []string{
		"build", "-trimpath", "-buildvcs=false",
		"-tags", "grpcnotrace", // gRPC's pages about requests, whose templates have the linker keep every method
		"-ldflags", "-s -w -buildid= -X oscine.dev/oscine/internal/version.Version=" + version, "-o", dir + "/",
	}
	var built []program
	for _, p := range programs {
		if strings.HasPrefix(p.pkg, "./") {
			mains, err := filepath.Glob(filepath.Join(source, p.pkg, "*.go"))
			if err != nil {
				return nil, err
			}
			if len(mains) == 0 {
				if p.optional {
					continue
				}
				return nil, fmt.Errorf("the source has no %s", p.pkg)
			}
		}
		args = append(args, p.pkg)
		built = append(built, p)
	}
	cmd := exec.CommandContext(ctx, goTool, args...)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOAMD64=v1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build Oscine's programs for %s: %w\n%s", arch, err, tail(out, 2000))
	}
	return built, nil
}

// givenPrograms is what of the programs a folder of built ones holds.
func givenPrograms(dir string) ([]program, error) {
	var found []program
	for _, p := range programs {
		if _, err := os.Stat(filepath.Join(dir, path.Base(p.pkg))); err == nil {
			found = append(found, p)
		} else if !p.optional {
			return nil, fmt.Errorf("built programs: %w", err)
		}
	}
	return found, nil
}

func tail(out []byte, n int) string {
	if len(out) > n {
		return "…" + string(out[len(out)-n:])
	}
	return string(out)
}
