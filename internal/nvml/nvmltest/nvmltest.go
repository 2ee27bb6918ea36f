package nvmltest

import (
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

//go:embed testdata
var sources embed.FS

// Machine is a pretended machine: its files lie in Dir.
type Machine struct {
	Dir     string
	Program string // the helper, as a node calls it
	Library string // the stand-in for libnvidia-ml.so.1
	t       testing.TB
}

// Addresses of the two GPUs; hardwaretest.Server8GPU has GPUs there too.
const (
	First  = "0000:13:00.0"
	Second = "0000:14:00.0"
)

// Sources writes the C sources into a directory and returns it.
func Sources(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"standin.c", "subset.h", "layout.c", "mps-control.sh"} {
		text, err := sources.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Compile compiles a C source against a header that takes the place of nvml.h.
func Compile(t testing.TB, source, header, out string, args ...string) {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("needs a C compiler for the stand-in of NVML: install gcc")
	}
	args = append(args, "-std=gnu11", "-Wall", "-Werror=incompatible-pointer-types", "-Werror=implicit-function-declaration", "-Wno-deprecated-declarations", "-DNVML_NO_UNVERSIONED_FUNC_DEFS",
		fmt.Sprintf("-DNVML_H=%q", header), "-o", out, source)
	if text, err := exec.Command(gcc, args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, text)
	}
}

// Build compiles the helper for several machines. root is the top of Oscine's
// source.
func Build(t testing.TB, root string) string {
	t.Helper()
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skipf("needs the go command: %v", err)
	}
	helper := filepath.Join(t.TempDir(), "helper")
	c := exec.Command(goTool, "build", "-o", helper, "./cmd/oscine-nvml")
	c.Dir, c.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if text, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build oscine-nvml: %v\n%s", err, text)
	}
	return helper
}

// New makes a machine of its own for the helper that Build compiled.
func New(t testing.TB, helper string) *Machine {
	t.Helper()
	dir := Sources(t)
	m := &Machine{Dir: dir, Program: filepath.Join(dir, "oscine-nvml"), Library: filepath.Join(dir, "libnvidia-ml.so.1"), t: t}
	Compile(t, filepath.Join(dir, "standin.c"), filepath.Join(dir, "subset.h"), m.Library, "-shared", "-fPIC")
	script := fmt.Sprintf(`#!/bin/sh
cd %s
export STANDIN_STATE=$PWD/state STANDIN_CAPS=$PWD/caps STANDIN_EVENTS=$PWD/events STANDIN_FAIL=$(cat fail 2>/dev/null)
[ ! -e hidden ] || export STANDIN_HIDDEN=1
exec %s --library ./libnvidia-ml.so.1 --capabilities "$PWD/caps" --mps-control "$PWD/mps-control.sh" "$@"
`, dir, helper)
	m.write("oscine-nvml", script, 0o755)
	return m
}

func (m *Machine) write(name, text string, mode os.FileMode) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.Dir, name), []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
}

// Fail has functions fail from now on: "nvmlInit_v2=9", by nvml.h's numbers;
// "activation=19" is what MIG's mode waits for; none has all work again.
func (m *Machine) Fail(functions ...string) { m.write("fail", strings.Join(functions, ","), 0o644) }

// FailMPS has the MPS daemon not start, or start again.
func (m *Machine) FailMPS(fails bool) {
	m.t.Helper()
	if !fails {
		_ = os.Remove(filepath.Join(m.Dir, "fail-mps"))
		return
	}
	m.write("fail-mps", "", 0o644)
}

// HideSwitches has the NVSwitches without PCI addresses.
func (m *Machine) HideSwitches() { m.write("hidden", "", 0o644) }

// Events are reported by the library: lines of GPU, nvml.h's type in hex, and data.
func (m *Machine) Events(lines ...string) { m.write("events", strings.Join(lines, "\n")+"\n", 0o644) }
