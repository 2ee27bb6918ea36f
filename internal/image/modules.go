package image

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/linux"
)

// Module is a loadable kernel module, or one built into the kernel.
type Module struct {
	Name    string   `json:"name"`              // with underscores, as /proc/modules shows it
	Path    string   `json:"path,omitempty"`    // below the modules folder, with its compression suffix; empty when built in
	Depends []string `json:"depends,omitempty"` // must be loaded before
	Pre     []string `json:"pre,omitempty"`     // soft dependencies: names or aliases to load before, if they exist
	Post    []string `json:"post,omitempty"`    // and after
	Aliases []string `json:"aliases,omitempty"` // patterns of device identities (modules.alias)
}

// Modules is the index of one kernel's modules. Debian's packages carry no
// modules.dep, so it is made of the modules themselves.
type Modules struct {
	Version string   `json:"version"` // as uname -r prints it
	Loaded  []Module `json:"modules"`

	byName map[string]*Module
}

// parseModinfo reads the .modinfo section of a module: strings key=value, each
// ended by a zero byte (include/linux/moduleparam.h).
func parseModinfo(section []byte) Module {
	var m Module
	for field := range bytes.SplitSeq(section, []byte{0}) {
		key, value, _ := strings.Cut(string(field), "=")
		m.set(key, value)
	}
	return m
}

func (m *Module) set(key, value string) {
	switch key {
	case "name":
		m.Name = linux.ModuleName(value)
	case "depends":
		for dep := range strings.SplitSeq(value, ",") {
			if dep != "" {
				m.Depends = append(m.Depends, linux.ModuleName(dep))
			}
		}
	case "alias":
		m.Aliases = append(m.Aliases, value)
	case "softdep":
		into := &m.Pre
		for word := range strings.FieldsSeq(value) {
			switch word {
			case "pre:":
				into = &m.Pre
			case "post:":
				into = &m.Post
			default:
				*into = append(*into, word)
			}
		}
	}
}

// parseBuiltin reads modules.builtin.modinfo, in which each string is
// name.key=value.
func parseBuiltin(text []byte) []Module {
	found := map[string]*Module{}
	for field := range bytes.SplitSeq(text, []byte{0}) {
		name, rest, ok := strings.Cut(string(field), ".")
		key, value, ok2 := strings.Cut(rest, "=")
		if !ok || !ok2 || name == "" {
			continue
		}
		name = linux.ModuleName(name)
		m := found[name]
		if m == nil {
			m = &Module{Name: name}
			found[name] = m
		}
		if key == "alias" {
			m.set(key, value)
		}
	}
	return sorted(found)
}

func sorted(found map[string]*Module) []Module {
	out := make([]Module, 0, len(found))
	for _, m := range found {
		out = append(out, *m)
	}
	slices.SortFunc(out, func(a, b Module) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// readBuiltin collects what the kernel holds itself from its modules folder.
func readBuiltin(dir string) ([]Module, error) {
	info, err := os.ReadFile(filepath.Join(dir, "modules.builtin.modinfo"))
	if err != nil {
		return nil, err
	}
	found := map[string]*Module{}
	for _, m := range parseBuiltin(info) {
		found[m.Name] = &m
	}
	list, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	scan := bufio.NewScanner(bytes.NewReader(list))
	for scan.Scan() {
		if name := linux.ModuleName(scan.Text()); name != "" && found[name] == nil {
			found[name] = &Module{Name: name}
		}
	}
	return sorted(found), scan.Err()
}

// find returns the module of that name, or those that carry it as an alias.
func (x *Modules) find(name string) []*Module {
	if x.byName == nil {
		x.byName = make(map[string]*Module, len(x.Loaded))
		for i := range x.Loaded {
			x.byName[x.Loaded[i].Name] = &x.Loaded[i]
		}
	}
	if m := x.byName[linux.ModuleName(name)]; m != nil {
		return []*Module{m}
	}
	var out []*Module
	for i := range x.Loaded {
		if slices.Contains(x.Loaded[i].Aliases, name) {
			out = append(out, &x.Loaded[i])
		}
	}
	return out
}

// Closure returns the loadable modules that names need, names included, each
// after those that it depends on: the order in which to load them. A name that
// the kernel holds itself costs nothing; one that it lacks is an error unless
// it ends in a question mark, which stands for "where this kernel has it".
func (x *Modules) Closure(names []string) ([]*Module, error) {
	var order []*Module
	state := map[*Module]bool{}
	var visit func(m *Module)
	visit = func(m *Module) {
		if state[m] {
			return
		}
		state[m] = true // before its dependencies, so that a circle of soft ones ends
		for _, dep := range slices.Concat(m.Depends, m.Pre) {
			for _, d := range x.find(dep) {
				visit(d)
			}
		}
		if m.Path != "" {
			order = append(order, m)
		}
		for _, dep := range m.Post {
			for _, d := range x.find(dep) {
				visit(d)
			}
		}
	}
	for _, name := range names {
		name, optional := strings.CutSuffix(name, "?")
		found := x.find(name)
		if len(found) == 0 && !optional {
			return nil, fmt.Errorf("kernel %s has no module %s", x.Version, name)
		}
		for _, m := range found {
			visit(m)
		}
	}
	return order, nil
}
