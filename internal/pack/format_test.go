package pack

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func engines() []Info {
	engine := func(name string, formats ...Format) Info {
		return Info{Manifest: Manifest{Name: name, Version: "1", Engines: []string{name + "-engine"}, Formats: formats, Protocols: []int{2}}}
	}
	old := engine("old", Format{Name: "old", Suffixes: []string{".old"}})
	old.Protocols = nil
	return []Info{
		engine("lite", Format{Name: "tflite", Suffixes: []string{".tflite"}, Magic: []Magic{{Offset: 4, Hex: "54464c33"}}}),
		engine("onnx", Format{Name: "onnx", Suffixes: []string{".onnx"}, Magic: []Magic{{Hex: "08"}}}),
		old,
		engine("text", Format{Name: "text", Suffixes: []string{".txt", ".text"}}),
		engine("vino", Format{Name: "onnx", Suffixes: []string{".onnx"}, Magic: []Magic{{Hex: "08"}}},
			Format{Name: "tflite", Suffixes: []string{".tflite"}, Magic: []Magic{{Offset: 4, Hex: "54464c33"}}}),
		{Manifest: Manifest{Name: "zz-drivers", Drivers: []string{"d"}}},
	}
}

func TestChoose(t *testing.T) {
	tflite, onnx := []byte("\x1c\x00\x00\x00TFL3"), []byte("\x08\x08")
	for name, test := range map[string]struct {
		q    Question
		want string // the pack's name, or part of the error
		err  error
	}{
		"by name and content":          {Question{Suffix: ".onnx", Head: onnx}, "onnx", nil},
		"by content":                   {Question{Head: onnx}, "onnx", nil},
		"by content, four bytes":       {Question{Head: tflite}, "lite", nil},
		"a name without a format":      {Question{Suffix: ".bin", Head: tflite}, "lite", nil},
		"by name alone":                {Question{Suffix: ".text", Head: []byte("hello")}, "text", nil},
		"an engine":                    {Question{Engine: "vino-engine", Suffix: ".onnx", Head: onnx}, "vino", nil},
		"an engine by its pack":        {Question{Engine: "vino", Head: tflite}, "vino", nil},
		"weak magic, no such name":     {Question{Suffix: ".bin", Head: onnx}, "none reads .bin files, those installed read .tflite (lite); .onnx (onnx)", ErrNoEngine},
		"another content":              {Question{Suffix: ".onnx", Head: []byte("no model")}, "is it whole, and of that format?", ErrNoEngine},
		"an empty head":                {Question{Suffix: ".tflite"}, "is it whole", ErrNoEngine},
		"a magic cut off":              {Question{Suffix: ".tflite", Head: tflite[:6]}, "is it whole", ErrNoEngine},
		"not what the engine reads":    {Question{Engine: "lite", Suffix: ".onnx", Head: onnx}, "does not begin as those", ErrNoEngine},
		"no such engine":               {Question{Engine: "tensorrt", Suffix: ".onnx", Head: onnx}, "the engine tensorrt: install its pack", ErrNotInstalled},
		"an engine that can be built":  {Question{Engine: "onnxruntime", Suffix: ".onnx", Head: onnx}, "make it with oscine pack build onnxruntime", ErrNotInstalled},
		"a driver pack is no engine":   {Question{Engine: "zz-drivers", Head: onnx}, "does not begin", ErrNoEngine},
		"another protocol":             {Question{Suffix: ".old"}, "the workers of the pack old 1 speak version 1 of the protocol, this node 2", ErrNoEngine},
		"a folder by a file in it":     {Question{Files: []FolderFile{{"weights.data", nil}, {"net.ONNX", onnx}}}, "onnx", nil},
		"a folder of another content":  {Question{Files: []FolderFile{{"net.onnx", []byte("no model")}}}, "is it whole", ErrNoEngine},
		"a folder of nothing known":    {Question{Files: []FolderFile{{"a.data", onnx}, {"b\n", nil}}}, "none reads a file at the top of the model's folder (a.data, b", ErrNoEngine},
		"a folder with two formats":    {Question{Suffix: ".onnx", Files: []FolderFile{{"net.onnx", onnx}, {"net.tflite", tflite}}}, "onnx", nil},
		"a pointer to the file":        {Question{Suffix: ".onnx", Head: []byte("version https://git-lfs.github.com/spec/v1\noid")}, "Git LFS pointer", ErrNoEngine},
		"a pickle":                     {Question{Suffix: ".pt", Head: []byte("\x80\x04\x95")}, "a Python pickle", ErrNoEngine},
		"nothing is known of the file": {Question{Head: []byte("?")}, "none reads the format of the file", ErrNoEngine},
	} {
		test.q.Protocols = []int{2}
		list, err := candidates(engines(), test.q)
		got := new(Info)
		if err == nil {
			got = &list[0]
		}
		switch {
		case test.err == nil && (err != nil || got.Name != test.want):
			t.Errorf("%s: got %v, %v, want the pack %s", name, got, err, test.want)
		case test.err != nil && (!errors.Is(err, test.err) || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: got %v, want %v with %q", name, err, test.err, test.want)
		}
	}
	_, err := candidates(nil, Question{Suffix: ".onnx", Head: onnx})
	if want := "the pack onnxruntime does: make it with oscine pack build onnxruntime and install it with oscine pack install FILE"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("no pack at all: got %v, want %s", err, want)
	}
}

// TestRecipes keeps the manifests that this source makes well formed.
func TestRecipes(t *testing.T) {
	for _, r := range recipes() {
		m := r.manifest
		m.Arch = "amd64"
		if err := m.check(); err != nil || m.Name != r.name {
			t.Errorf("%s: %v, of the name %s", r.name, err, m.Name)
		}
	}
}

func TestParseEngineManifest(t *testing.T) {
	const good = `"formats":[{"name":"f","suffixes":[".f"],"magic":[{"offset":4,"hex":"0a0b"}]}],"platform":"p_f","protocols":[2],` +
		`"memoryBytes":1048576,"requires":{"cpu":["avx2"],"devices":["vendor.com/gpu"],"kernelDrivers":{"nvidia":"580.1"}},"licences"`
	text := strings.Replace(manifestText("arm64"), `"licences"`, good, 1)
	m, err := ParseManifest([]byte(text))
	if err != nil || m.Formats[0].Magic[0].Offset != 4 || m.Requires.CPU[0] != "avx2" {
		t.Fatalf("got %+v, %v", m, err)
	}
	for _, test := range []struct{ from, to, want string }{
		{`".f"`, `"f"`, `suffix "f"`},
		{`".f"`, `".F"`, `suffix ".F"`},
		{`[".f"]`, `[]`, "at least one suffix"},
		{`"name":"f"`, `"name":"/"`, `format "/"`},
		{`"0a0b"`, `"0a0"`, "must be bytes in hex"},
		{`"0a0b"`, `""`, "must be bytes in hex"},
		{`"offset":4`, `"offset":-1`, "must be bytes in hex"},
		{`"offset":4`, `"offset":9999999`, "must be bytes in hex"},
		{`"p_f"`, `"p f"`, `platform "p f"`},
		{`"protocols":[2]`, `"protocols":[0]`, "0 is no version"},
		{`1048576`, `-1`, "is negative"},
		{`"avx2"`, `"AVX 2"`, `"AVX 2" is no feature`},
		{`"vendor.com/gpu"`, `"gpu"`, "must be a kind of CDI devices"},
		{`["vendor.com/gpu"]`, `[]`, "requires.devices must say"},
		{`"580.1"`, `"new"`, "must be a driver's name and numbers"},
		{`"nvidia"`, `"NV/1"`, "must be a driver's name and numbers"},
		{`"engines":["x"],"entrypoint":["/usr/bin/w","-a"],`, `"drivers":["d"],`, "no engine that they are for"},
	} {
		bad := strings.Replace(text, test.from, test.to, 1)
		if _, err := ParseManifest([]byte(bad)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s → %s: got %v, want %s", test.from, test.to, err, test.want)
		}
	}
}

func TestRequires(t *testing.T) {
	x86 := "processor\t: 0\nflags\t\t: fpu sse4_2 avx2\n\nprocessor\t: 1\nflags\t\t: fpu sse4_2\n"
	for _, test := range []struct {
		cpuinfo string
		want    []string
		missing []string
	}{
		{x86, []string{"fpu", "sse4_2"}, []string{}},
		{x86, []string{"avx2", "amx_tile"}, []string{"amx_tile", "avx2"}},
		{"Features\t: fp asimd\n", []string{"asimd", "sve"}, []string{"sve"}},
		{"no such line", []string{"sve"}, []string{"sve"}},
	} {
		if got := missingFeatures(test.cpuinfo, test.want); !slices.Equal(got, test.missing) {
			t.Errorf("%q of %q: got %q missing, want %q", test.want, test.cpuinfo, got, test.missing)
		}
	}
	m := Manifest{Name: "p", MemoryBytes: 64 << 20, Requires: Requires{Devices: []string{"v.com/gpu"}}}
	with := Manifest{Name: "p", Requires: Requires{Devices: []string{"v.com/gpu"}, KernelDrivers: map[string]string{"nvidia": "580"}}}
	gpu := func(driver, version string) []Device {
		return []Device{{"other.com/nic=eth0", "", ""}, {"v.com/gpu=gpu0", driver, version}}
	}
	for _, test := range []struct {
		m       Manifest
		devices []Device
		memory  int64
		want    string
	}{
		{m, gpu("", ""), 0, ""},
		{m, gpu("", ""), 64 << 20, ""},
		{m, gpu("", ""), 1 << 20, "needs 64 MiB"},
		{m, []Device{{Name: "v.com/gpus=0"}}, 0, "needs a device v.com/gpu"},
		{m, nil, 0, "needs a device v.com/gpu"},
		{with, gpu("nvidia", "580.159.03"), 0, ""},
		{with, gpu("nvidia", "1000.1"), 0, ""},
		{with, gpu("nvidia", ""), 0, ""},
		{with, gpu("nvidia", "550.163.01"), 0, "the pack p needs the kernel driver nvidia 580 or newer; gpu0 has 550.163.01: install a newer driver"},
		{with, gpu("amdgpu", "6.12"), 0, `the kernel driver nvidia 580 or newer; gpu0 has the driver "amdgpu"`},
	} {
		m := test.m
		err := m.CheckUse(test.devices, test.memory)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%q with %d bytes: got %v, want %q", test.devices, test.memory, err, test.want)
		}
	}
}

// A pack whose programs the CPUs cannot run is not installed.
func TestInstallChecksCPU(t *testing.T) {
	s, c, dir := openTestStore(t)
	s.cpu = filepath.Join(dir, "cpuinfo")
	if err := os.WriteFile(s.cpu, []byte("flags : fpu\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	manifest := strings.Replace(manifestText("ARCH"), `"licences"`, `"requires":{"cpu":["avx512f"]},"licences"`, 1)
	_, err := c.install(s, makePackOf(t, manifest))
	skipUnmountable(t, err)
	if !errors.Is(err, ErrNotPack) || !strings.Contains(err.Error(), "pack e needs avx512f, which this node's CPUs lack") {
		t.Errorf("got %v", err)
	}
}

func FuzzChoose(f *testing.F) {
	f.Add(".onnx", []byte("\x08\x08"), "")
	f.Add(".tflite", []byte("\x1c\x00\x00\x00TFL3"), "vino")
	f.Fuzz(func(t *testing.T, suffix string, head []byte, engine string) {
		list, err := candidates(engines(), Question{Engine: engine, Suffix: suffix, Head: head, Protocols: []int{2}})
		if (len(list) == 0) == (err == nil) || err != nil && !errors.Is(err, ErrNoEngine) && !errors.Is(err, ErrNotInstalled) {
			t.Errorf("got %v, %v", list, err)
		}
	})
}
