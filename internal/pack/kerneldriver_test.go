package pack

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

const driverManifest = `{"name":"gpu","version":"550.163.01-1","arch":"ARCH","drivers":["helper"],"licences":[],"inputs":[],` +
	`"kernel":{"name":"nvidia","version":"550.163.01","cuda":"12.4","kernels":["7.2-cloud","7.2-metal"],"modules":["nvidia","nvidia-uvm"],"devices":["pci:v000010DEd*sv*sd*bc03sc02i00*"]}}`

func TestParseKernelDriver(t *testing.T) {
	text := strings.ReplaceAll(driverManifest, "ARCH", "amd64")
	m, err := ParseManifest([]byte(text))
	if err != nil || m.Kernel.Version != "550.163.01" || !m.Fits("7.2-cloud") || m.Fits("7.3-cloud") {
		t.Fatalf("got %+v, %v", m, err)
	}
	if got := m.Misfit("7.3-cloud"); !strings.Contains(got, "for the kernel 7.2-cloud, 7.2-metal, and none for 7.3-cloud") || !strings.Contains(got, "oscine pack build gpu") {
		t.Error(got)
	}
	for _, test := range []struct{ from, to, want string }{
		{`"nvidia","version":"550.163.01"`, `"nvidia","version":"new"`, "driver's name and version"},
		{`"12.4"`, `"twelve"`, "kernel.cuda"},
		{`["7.2-cloud","7.2-metal"]`, `[]`, "at least one each"},
		{`"7.2-metal"`, `"../7.2"`, "kernel.kernels"},
		{`"nvidia-uvm"`, `"../nvidia"`, "kernel.modules"},
		{`pci:v000010DE`, `/sys/`, "kernel.devices"},
	} {
		if _, err := ParseManifest([]byte(strings.Replace(text, test.from, test.to, 1))); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", test.to, err, test.want)
		}
	}
}

// makeDriverPack builds a pack with empty modules for kernels.
func makeDriverPack(t *testing.T, version string, kernels ...string) []byte {
	t.Helper()
	text := strings.ReplaceAll(driverManifest, "ARCH", runtime.GOARCH)
	text = strings.Replace(text, `["7.2-cloud","7.2-metal"]`, `["`+strings.Join(kernels, `","`)+`"]`, 1)
	text = strings.Replace(text, `"550.163.01-1"`, `"`+version+`"`, 1)
	if os.Geteuid() != 0 {
		t.Skip("mounting packs needs root")
	}
	dir := t.TempDir()
	write := func(name, content string) {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range kernels {
		write(ModulesPath+"/"+k+"/nvidia.ko", "")
		write(ModulesPath+"/"+k+"/nvidia-uvm.ko", "")
	}
	write(DriversPath+"/helper", "#!/bin/false\n")
	write(ManifestPath, text)
	file := filepath.Join(t.TempDir(), "gpu.erofs")
	if err := Write(t.Context(), dir, file); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestInstallKernelDriver refuses modules of another kernel, those that the kernel does
// not take, and any where the kernel is not Oscine's.
func TestInstallKernelDriver(t *testing.T) {
	raw := makeDriverPack(t, "1", "7.2-cloud")
	s, c, _ := openTestStore(t)
	install := func() error {
		_, err := c.install(s, raw)
		return err
	}
	if err := install(); !errors.Is(err, ErrNotPack) || !strings.Contains(err.Error(), "this node's kernel is the host's") {
		t.Errorf("hosted: %v", err)
	}
	s.Kernel = "7.3-cloud"
	if err := install(); !errors.Is(err, ErrNotPack) || !strings.Contains(err.Error(), "none for 7.3-cloud") {
		t.Errorf("another kernel: %v", err)
	}
	s.Kernel = "7.2-cloud"
	tried, refusal := "", errors.New("not trusted")
	s.TryModule = func(file string) error { tried = file; return refusal }
	if err := install(); !errors.Is(err, refusal) || !strings.HasSuffix(tried, "/usr/lib/modules/7.2-cloud/nvidia.ko") {
		t.Errorf("a module that the kernel refuses: %v, of %s", err, tried)
	}
	refusal = nil
	if err := install(); err != nil {
		t.Error(err)
	}
}

func TestFitKernel(t *testing.T) {
	raw, next := makeDriverPack(t, "1", "7.2-cloud"), makeDriverPack(t, "2", "7.3-cloud")
	s, c, _ := openTestStore(t)
	s.Kernel, s.Release = "7.2-cloud", "1.0"
	if err := s.FitKernel("7.3-cloud", nil, ""); err != nil {
		t.Errorf("without packs: %v", err)
	}
	if _, err := c.install(s, raw); err != nil {
		t.Fatal(err)
	}
	file := "gpu-" + runtime.GOARCH + ".erofs"
	for _, test := range []struct {
		kernel string
		pins   []string
		want   string
	}{
		{"7.2-cloud", nil, ""},
		{"7.3-cloud", nil, "none for 7.3-cloud"},
		{"7.3-cloud", []string{"gpu-other.erofs"}, "oscine pack remove gpu"},
		{"7.3-cloud", []string{file}, ""},
		{"7.3-cloud", []string{"gpu.erofs"}, ""},
	} {
		err := s.FitKernel(test.kernel, test.pins, "")
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s with %v: got %v, want %q", test.kernel, test.pins, err, test.want)
		}
	}
	s.HasDevice = func(k *KernelDriver) bool { return k.Name != "nvidia" }
	if err := s.FitKernel("7.3-cloud", nil, ""); err != nil {
		t.Errorf("without a device: %v", err)
	}
	s.HasDevice = func(k *KernelDriver) bool { return k.Name == "nvidia" }
	s.Kernel = "7.1-cloud"
	if err := s.FitKernel("7.3-cloud", nil, ""); err != nil {
		t.Errorf("a pack that does not fit the running kernel either: %v", err)
	}
	s.Kernel = "7.2-cloud"
	s.Pinned = func(digest string) (string, bool) { return "", digest == digestOf(next) }
	if err := s.Stage(t.Context(), "1.1", digestOf(next), sending(next)); err != nil {
		t.Fatal(err)
	}
	if err := s.FitKernel("7.3-cloud", nil, "1.1"); err != nil {
		t.Errorf("with the release's own: %v", err)
	}
	if err := s.FitKernel("7.4-cloud", nil, "1.1"); err == nil || !strings.Contains(err.Error(), "none for 7.4-cloud") {
		t.Errorf("the release's own does not fit: %v", err)
	}
}

// runFile makes an archive as NVIDIA's: a script, a program that unpacks, and a
// compressed tar archive.
func runFile(t *testing.T, compress func(io.Writer) (io.WriteCloser, error), files map[string]string) string {
	t.Helper()
	var out bytes.Buffer
	out.WriteString("#! /bin/sh\nskip=3\n\x28\xb5\x2f\xfd no stream\n\x7fELF")
	z, err := compress(&out)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	for name, content := range files {
		err := errors.Join(w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}))
		if err == nil {
			_, err = io.WriteString(w, content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "NVIDIA-Linux-x86_64-580.95.05.run")
	if err := os.WriteFile(file, out.Bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestUnpackRun(t *testing.T) {
	good := map[string]string{"./NVIDIA-Linux-x86_64-580.95.05/LICENSE": "terms", "./NVIDIA-Linux-x86_64-580.95.05/kernel-open/Makefile": "all:"}
	for name, compress := range map[string]func(io.Writer) (io.WriteCloser, error){
		"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
		"xz":   func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
	} {
		dir := t.TempDir()
		if err := unpackRun(t.Context(), runFile(t, compress, good), dir); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if text, err := os.ReadFile(filepath.Join(dir, "kernel-open/Makefile")); err != nil || string(text) != "all:" {
			t.Errorf("%s: got %q, %v", name, text, err)
		}
		bad := runFile(t, compress, map[string]string{"../../etc/passwd": "root"})
		if err := unpackRun(t.Context(), bad, t.TempDir()); err == nil || !strings.Contains(err.Error(), "leads out of it") {
			t.Errorf("%s: a name that leads out: %v", name, err)
		}
	}
	for text, want := range map[string]string{"\x7fELF": "as a script", "#!/bin/sh\nexit 0\n": "no compressed tar archive"} {
		file := filepath.Join(t.TempDir(), "x.run")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := unpackRun(t.Context(), file, t.TempDir()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

// TestBuildDriverRefuses tells what is wrong before anything is fetched or compiled.
func TestBuildDriverRefuses(t *testing.T) {
	run := runFile(t, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }, map[string]string{"./NVIDIA-Linux-x86_64-580.95.05/LICENSE": "terms"})
	t.Setenv("OSCINE_CACHE", t.TempDir())
	for _, test := range []struct {
		o    BuildOptions
		want string
	}{
		{BuildOptions{Name: "onnxruntime", Flavours: []string{"cloud"}}, "has no modules of the kernel"},
		{BuildOptions{Archive: "driver.run"}, "not named as NVIDIA names its archives"},
		{BuildOptions{Archive: run, Arch: "arm64"}, "give --arch amd64"},
		{BuildOptions{Archive: filepath.Join(t.TempDir(), filepath.Base(run))}, "no such file"},
		{BuildOptions{Archive: run}, "no open kernel modules"},
	} {
		o := test.o
		if o.Name == "" {
			o.Name = nvidiaDriverName
		}
		if o.Arch == "" {
			o.Arch = "amd64"
		}
		o.Out = t.TempDir()
		if _, err := Build(t.Context(), o); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v, want %s", test.o, err, test.want)
		}
	}
}

func TestNewestCUDA(t *testing.T) {
	for version, want := range map[string]string{"550.163.01": "12.4", "580.95.05": "13.0", "470.1": "", "new": ""} {
		if got := newestCUDA(version); got != want {
			t.Errorf("%s: got %q, want %q", version, got, want)
		}
	}
}
