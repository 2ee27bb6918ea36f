package licence

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"

	"golang.org/x/mod/module"

	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/pattern"
)

// maxFiles bounds the licence files of one module.
const maxFiles = 32

// licenceFile matches the names of licence files. Those of documentation do not
// concern a program.
var licenceFile = pattern.New(`(?i)^((un)?licen[cs]e|copying)([-_.].*)?$`)

// OfModule returns the licence of a Go module by the licence files in its
// folder, each of at most 4 MiB. Where it has several, all apply: which of them
// a person may choose among, no file says in a way that a program can read. A
// module without any gives the zero Licence.
func OfModule(dir fs.FS) (Licence, error) {
	entries, err := fs.ReadDir(dir, ".")
	if err != nil {
		return Licence{}, err
	}
	var all []terms
	for _, e := range entries {
		name := e.Name()
		if !e.Type().IsRegular() || !licenceFile.MatchString(name) || path.Ext(name) == ".docs" || path.Ext(name) == ".go" {
			continue
		}
		if len(all) == maxFiles {
			return Licence{}, fmt.Errorf("a module with more than %d licence files", maxFiles)
		}
		text, err := readText(dir, name)
		if err != nil {
			return Licence{}, err
		}
		all = append(all, recognise(name, text))
	}
	return join(and, all...).licence(), nil
}

func readText(dir fs.FS, name string) (string, error) {
	f, err := dir.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := bounded.ReadAll(f, maxText)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return string(text), nil
}

// Modules finds the source of Go modules on this machine. The zero value finds
// none.
type Modules struct {
	cache string // GOMODCACHE
	std   string // GOROOT
}

// OpenModules asks the go command where it keeps the modules of what it builds
// in a folder. Without a go command it returns an error.
func OpenModules(ctx context.Context, dir string) (*Modules, error) {
	cmd := exec.CommandContext(ctx, "go", "env", "-json", "GOMODCACHE", "GOROOT")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("find the source of Go modules: %w", err)
	}
	var env struct{ GOMODCACHE, GOROOT string }
	if err := json.Unmarshal(out, &env); err != nil {
		return nil, fmt.Errorf("find the source of Go modules: go env: %w", err)
	}
	return &Modules{cache: env.GOMODCACHE, std: env.GOROOT}, nil
}

// Std is the name that [Modules.Find] knows Go's own library by.
const Std = "std"

// Find returns the licence of a module at a version, both as the build
// information of a program has them. Where the machine lacks the module, the
// error is fs.ErrNotExist.
func (m *Modules) Find(name, version string) (Licence, error) {
	l, err := m.find(name, version)
	if err != nil {
		return Licence{}, fmt.Errorf("licence of the Go module %s %s: %w", name, version, err)
	}
	return l, nil
}

func (m *Modules) find(name, version string) (Licence, error) {
	dir := m.std
	if dir == "" {
		return Licence{}, fs.ErrNotExist
	}
	if name != Std {
		escaped, err := module.EscapePath(name)
		if err != nil {
			return Licence{}, err
		}
		if version, err = module.EscapeVersion(version); err != nil {
			return Licence{}, err
		}
		dir = filepath.Join(m.cache, escaped+"@"+version)
	}
	return OfModule(os.DirFS(dir))
}
