package boot

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/linux"
)

const maxModulesFile = 1 << 20

// module is one line of ModulesFile.
type module struct{ file, params string }

// loadModules loads what list names. A module that does not load is reported
// and the boot goes on: whether it was needed shows where its device is used.
func loadModules(log *Log, list string) int {
	f, err := os.Open(list)
	if err != nil {
		log.Error("kernel modules: %v", err)
		return 0
	}
	defer f.Close()
	modules, err := parseModules(io.LimitReader(f, maxModulesFile), modulesDir())
	if err != nil {
		log.Error("kernel modules in %s: %v", list, err)
	}
	loaded := 0
	for _, m := range modules {
		if err := linux.LoadModule(m.file, m.params); err != nil {
			log.Error("%v", err)
			continue
		}
		loaded++
	}
	return loaded
}

func parseModules(r io.Reader, dir string) ([]module, error) {
	var modules []module
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		file, params, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if file == "" || strings.HasPrefix(file, "#") {
			continue
		}
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		modules = append(modules, module{file, strings.TrimSpace(params)})
	}
	return modules, lines.Err()
}

// modulesDir is the module tree of the running kernel.
func modulesDir() string {
	var uts unix.Utsname
	if unix.Uname(&uts) != nil {
		return "/usr/lib/modules"
	}
	return "/usr/lib/modules/" + unix.ByteSliceToString(uts.Release[:])
}
