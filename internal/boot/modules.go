package boot

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/linux"
)

// Bounds on the module lists.
const (
	maxModuleList  = 16 << 20 // bytes
	maxModuleAlias = 4096     // bytes of one identity
)

// errNoModule is returned for a name or identity that no module on this system
// serves; mostly the kernel has it built in.
var errNoModule = errors.New("no module serves it")

// modules loads kernel modules by name, by the identity of a device, or by the
// alias under which the kernel asks for one, from the lists depmod(8) makes.
type modules struct {
	dir     string              // /usr/lib/modules/RELEASE
	depends map[string][]string // name → its own file and those it needs, to be loaded from the end
	aliases []alias
	seen    map[string]bool // identities that were tried already
	loaded  map[string]bool // names
	later   map[string]bool // names that coldplug puts off
	put     []string        // those that it has put off
}

// lateModules are what the daemon's API does not wait for: checking a module's
// signature costs as much as a whole stage of the boot. They load when the API
// is open, or when that does not happen soon.
func lateModules() map[string]bool {
	late := map[string]bool{"evdev": true, "button": true, "gpio_keys": true, "virtio_balloon": true, "virtio_rng": true}
	if _, err := unix.Getrandom(make([]byte, 1), unix.GRND_NONBLOCK); err != nil {
		delete(late, "virtio_rng") // everything would wait for random numbers
	}
	return late
}

type alias struct{ pattern, module string }

// openModules reads the lists of the running kernel. Where one is missing the
// modules it would name cannot be loaded.
func openModules(log *Log) *modules { return openModulesIn(log, linux.ModulesDir()) }

func openModulesIn(log *Log, dir string) *modules {
	m := &modules{dir: dir, depends: map[string][]string{}, seen: map[string]bool{}, loaded: map[string]bool{}}
	for name, parse := range map[string]func([]byte){"modules.dep": m.parseDep, "modules.alias": m.parseAlias} {
		raw, err := readBounded(filepath.Join(m.dir, name), maxModuleList)
		if err != nil {
			log.Error("kernel modules: %v", err)
			continue
		}
		parse(raw)
	}
	// Loading one again fails only after its signature was checked again.
	if raw, err := readBounded("/proc/modules", maxModuleList); err == nil {
		m.parseLoaded(raw)
	}
	return m
}

// parseLoaded reads lines "NAME SIZE …".
func (m *modules) parseLoaded(raw []byte) {
	for line := range bytes.Lines(raw) {
		if f := strings.Fields(string(line)); len(f) > 0 {
			m.loaded[f[0]] = true
		}
	}
}

func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return bounded.ReadAll(f, limit)
}

// parseDep reads lines "FILE: FILE FILE".
func (m *modules) parseDep(raw []byte) {
	for line := range bytes.Lines(raw) {
		file, needs, ok := strings.Cut(strings.TrimSpace(string(line)), ":")
		if ok {
			m.depends[linux.ModuleName(file)] = append([]string{file}, strings.Fields(needs)...)
		}
	}
}

// parseAlias reads lines "alias PATTERN MODULE".
func (m *modules) parseAlias(raw []byte) {
	for line := range bytes.Lines(raw) {
		if f := strings.Fields(string(line)); len(f) == 3 && f[0] == "alias" {
			m.aliases = append(m.aliases, alias{f[1], linux.ModuleName(f[2])})
		}
	}
}

// load loads what serves name, a module or an alias, with what it needs. A module
// named by itself gets the parameters.
func (m *modules) load(name, parameters string) error {
	if _, ok := m.depends[linux.ModuleName(name)]; ok {
		return m.loadModule(linux.ModuleName(name), parameters)
	}
	err := errNoModule
	for _, a := range m.aliases {
		if !match(a.pattern, name) {
			continue
		}
		if errors.Is(err, errNoModule) {
			err = nil
		}
		if m.later[a.module] {
			m.put = append(m.put, a.module)
			continue
		}
		err = errors.Join(err, m.loadModule(a.module, ""))
	}
	if err != nil {
		return fmt.Errorf("module for %s: %w", name, err)
	}
	return nil
}

func (m *modules) loadModule(name, parameters string) error {
	files := m.depends[name]
	if len(files) == 0 {
		return errNoModule
	}
	for i := len(files) - 1; i > 0; i-- {
		if err := m.loadFile(files[i], ""); err != nil {
			return err
		}
	}
	return m.loadFile(files[0], parameters)
}

func (m *modules) loadFile(file, params string) error {
	if !filepath.IsAbs(file) {
		file = filepath.Join(m.dir, file)
	}
	name := linux.ModuleName(file)
	if m.loaded[name] {
		return nil
	}
	err := linux.LoadModule(file, params)
	m.loaded[name] = err == nil
	return err
}

// loadListed loads what list (ModulesFile) names. A module that does not load
// is reported and the boot goes on: whether it was needed shows where its
// device is used.
func (m *modules) loadListed(log *Log, list string) {
	raw, err := readBounded(list, maxModuleList)
	if err != nil {
		log.Error("kernel modules: %v", err)
		return
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		file, params, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if file == "" || strings.HasPrefix(file, "#") {
			continue
		}
		if err := m.loadFile(file, strings.TrimSpace(params)); err != nil {
			log.Error("%v", err)
		}
	}
}

// coldplug loads the drivers of the devices that are there and were not there
// at the last call, and of those that appear by it.
func (m *modules) coldplug(log *Log, sys string) {
	const rounds = 4 // a controller, its bus, a device on it, what the device offers
	for range rounds {
		fresh := m.identities(sys)
		if len(fresh) == 0 {
			return
		}
		for _, id := range fresh {
			if err := m.load(id, ""); err != nil && !errors.Is(err, errNoModule) {
				log.Error("%v", err)
			}
		}
	}
}

// loadLate loads what coldplug has put off, and the drivers of what appears by it.
func (m *modules) loadLate(log *Log, sys string) {
	m.later = nil
	for _, name := range m.put {
		if err := m.loadModule(name, ""); err != nil && !errors.Is(err, errNoModule) {
			log.Error("%v", err)
		}
	}
	m.put = nil
	m.coldplug(log, sys)
}

// identities returns the modalias of each device below sys that was not
// returned before.
func (m *modules) identities(sys string) []string {
	devices := []string{filepath.Join(sys, "class/input")}
	for _, bus := range namesIn(filepath.Join(sys, "bus")) {
		devices = append(devices, filepath.Join(sys, "bus", bus, "devices"))
	}
	var fresh []string
	buffer := make([]byte, maxModuleAlias)
	for _, dir := range devices {
		for _, device := range namesIn(dir) {
			id := readIdentity(dir+"/"+device+"/modalias", buffer)
			if id == "" || m.seen[id] {
				continue
			}
			m.seen[id] = true
			fresh = append(fresh, id)
		}
	}
	return fresh
}

// namesIn returns what a folder holds, sorted; nothing where it cannot be read.
func namesIn(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names
}

// readIdentity reads a modalias, or returns nothing where there is none. A machine has
// hundreds of devices, and os.Open costs several system calls more.
func readIdentity(file string, buffer []byte) string {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, buffer)
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(buffer[:n]))
}

// count is how many modules are loaded.
func (m *modules) count() int {
	n := 0
	for _, ok := range m.loaded {
		if ok {
			n++
		}
	}
	return n
}

// modprobe is what the kernel runs this program for, as its modprobe(8), when
// something asks for a file system, a protocol or a firewall expression that is
// a module: "init -q -- NAME". The daemon runs it so too, with parameters behind
// the name.
func modprobe(args []string) error {
	log := OpenLog()
	name, parameters := modprobeArgs(args)
	err := guard("modprobe", func() error { return openModules(log).load(name, parameters) })
	if err != nil && !errors.Is(err, errNoModule) {
		log.Error("the kernel asked for %s: %v", name, err)
	}
	return err
}

func modprobeArgs(args []string) (name, parameters string) {
	for len(args) > 1 && strings.HasPrefix(args[0], "-") {
		end := args[0] == "--"
		if args = args[1:]; end {
			break
		}
	}
	return args[0], strings.Join(args[1:], " ")
}

// enableModprobe makes the kernel run program as its modprobe.
func enableModprobe(log *Log, program string) {
	if err := os.WriteFile("/proc/sys/kernel/modprobe", []byte(program), 0o644); err != nil {
		log.Error("modules cannot be loaded on demand: %v", err)
	}
}
