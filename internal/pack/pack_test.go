package pack

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/debian"
)

const goodManifest = `{"name":"e","version":"1.0-1","arch":"ARCH","engines":["x"],"entrypoint":["/usr/bin/w","-a"],"licences":[],"inputs":[{"name":"i","version":"1","digest":"sha256:DIGEST"}]}`

func manifestText(arch string) string {
	return strings.NewReplacer("ARCH", arch, "DIGEST", strings.Repeat("a", 64)).Replace(goodManifest)
}

func TestParseManifest(t *testing.T) {
	m, err := ParseManifest([]byte(manifestText("arm64")))
	if err != nil || m.Name != "e" || m.Entrypoint[1] != "-a" {
		t.Fatalf("got %+v, %v", m, err)
	}
	for _, test := range []struct{ from, to, want string }{
		{`"name":"e"`, `"name":"../e"`, `name "../e"`},
		{`"arm64"`, `"mips"`, `arch "mips"`},
		{`"engines":["x"]`, `"engines":[]`, "engines"},
		{`"engines":["x"]`, `"drivers":["../x"],"engines":["x"]`, `driver "../x"`},
		{`"engines":["x"]`, `"drivers":["x"]`, "no engine or tool that it is for"},
		{`"engines":["x"]`, `"tools":["../x"]`, `tool "../x"`},
		{`"engines":["x"]`, `"engines":["x"],"tools":["x"]`, "make two packs"},
		{`"entrypoint":["/usr/bin/w","-a"],`, ``, "entrypoint: is missing"},
		{`/usr/bin/w`, `bin/w`, "clean absolute path"},
		{`/usr/bin/w`, `/../w`, "clean absolute path"},
		{`sha256:`, `md5:`, "neither sha256"},
		{`"version"`, `"ver":1,"version"`, "unknown field"},
		{`]}`, `]}{}`, "something follows"},
		{`"1.0-1"`, `"1 0"`, "version"},
	} {
		text := strings.Replace(manifestText("arm64"), test.from, test.to, 1)
		if _, err := ParseManifest([]byte(text)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", text, err, test.want)
		}
	}
	if _, err := ParseManifest(bytes.Repeat([]byte(" "), maxManifest+1)); err == nil {
		t.Error("a manifest of more than 256 KiB was accepted")
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(manifestText("amd64")))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ParseManifest(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseManifest(again); err != nil {
			t.Errorf("accepted %q but not its own writing %q: %v", text, again, err)
		}
	})
}

// makePack builds a tiny pack with a program, or skips the test.
func makePack(t *testing.T, arch, content string) []byte {
	t.Helper()
	return makePackWith(t, manifestText(arch), content)
}

// makePackOf builds a tiny pack for this architecture.
func makePackOf(t *testing.T, manifest string) []byte {
	t.Helper()
	return makePackWith(t, strings.ReplaceAll(manifest, "ARCH", runtime.GOARCH), "program")
}

func makePackWith(t *testing.T, manifest, content string) []byte {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting packs needs root")
	}
	if _, err := debian.FindTool(t.Context(), "mkfs.erofs"); err != nil {
		t.Skipf("needs mkfs.erofs: %v", err)
	}
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "usr/bin/w"), []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "pack.json"), []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "p.erofs")
	if err := Write(t.Context(), root, file); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func openTestStore(t *testing.T) (*Store, *cluster, string) {
	t.Helper()
	dir, c := t.TempDir(), newCluster(t)
	s, err := OpenStore(filepath.Join(dir, "packs"), filepath.Join(dir, "mounts"), c.pool)
	if err != nil {
		t.Fatal(err)
	}
	return s, c, dir
}

func skipUnmountable(t *testing.T, err error) {
	t.Helper()
	if err != nil && (strings.Contains(err.Error(), "the kernel has no erofs") || strings.Contains(err.Error(), "mounting packs needs root")) {
		t.Skip(err)
	}
}

func TestStore(t *testing.T) {
	first := makePack(t, runtime.GOARCH, strings.Repeat("first ", 9000))
	second := makePack(t, runtime.GOARCH, "second")
	s, c, dir := openTestStore(t)
	p, err := c.install(s, first)
	skipUnmountable(t, err)
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "e" || p.SizeBytes != int64(len(first)) || !strings.HasPrefix(p.Digest, "sha256:") {
		t.Errorf("installed %+v", p)
	}
	for _, name := range []string{"e", "x"} {
		_, mount, err := s.Mount(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(mount, "usr/bin/w")); err != nil || !strings.HasPrefix(string(got), "first") {
			t.Errorf("mounted by %s: %.20q, %v", name, got, err)
		}
		if err := os.WriteFile(filepath.Join(mount, "new"), nil, 0o600); err == nil {
			t.Error("the mounted pack can be written")
		}
	}
	// The other version takes its place, the mount of the old one goes.
	if p, err = c.install(s, second); err != nil {
		t.Fatal(err)
	}
	again, err := OpenStore(filepath.Join(dir, "packs"), filepath.Join(dir, "mounts"), c.pool)
	if err != nil {
		t.Fatal(err)
	}
	list, err := again.List()
	if diff := cmp.Diff([]Info{*p}, list); err != nil || diff != "" {
		t.Errorf("list: %v %s", err, diff)
	}
	// One flipped bit, and it is not mounted.
	raw := bytes.Clone(second)
	raw[len(raw)-5] ^= 1
	if err := os.WriteFile(p.File, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := again.Mount("e"); !errors.Is(err, ErrDamaged) {
		t.Errorf("a damaged pack: got %v", err)
	}
	if err := again.Remove("e"); err != nil {
		t.Error(err)
	}
	if err := again.Remove("e"); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("removed twice: got %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*", "*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestInstallRefuses(t *testing.T) {
	s, c, dir := openTestStore(t)
	foreign := "arm64"
	if runtime.GOARCH == "arm64" {
		foreign = "amd64"
	}
	other := makePack(t, foreign, "x")
	for name, test := range map[string]struct {
		raw  []byte
		want string
	}{
		"empty":        {nil, "shorter than any pack"},
		"text":         {bytes.Repeat([]byte("text"), 5000), "no erofs file"},
		"wrong arch":   {other, "is for " + foreign},
		"cut off":      {other[:2000], "shorter than any pack"},
		"broken block": {append(bytes.Clone(other[:1030]), bytes.Repeat([]byte{0xff}, 8000)...), "its file system"},
	} {
		_, err := c.install(s, test.raw)
		skipUnmountable(t, err)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*", "*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestBuildTwice builds the real packs twice, for both architectures where the
// slow tests run too; the engine itself is not fetched here.
func TestBuildTwice(t *testing.T) {
	for name, most := range map[string]int64{"onnxruntime": 20e6, "openvino": 55e6, "litert": 9e6} {
		t.Run(name, func(t *testing.T) { buildTwice(t, name, most) })
	}
}

func buildTwice(t *testing.T, name string, most int64) {
	arches := []string{runtime.GOARCH}
	if os.Getenv("OSCINE_VM_TESTS") != "" {
		arches = []string{"amd64", "arm64"}
	}
	for _, arch := range arches {
		if _, err := Libraries(t.Context(), name, arch, false, os.Stderr); err != nil {
			t.Skip(err)
		}
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip(err)
	}
	for _, arch := range arches {
		var digests []string
		for range 2 {
			p, err := Build(t.Context(), BuildOptions{Name: name, Arch: arch, Out: t.TempDir(), Source: "."})
			if err != nil {
				t.Fatal(err)
			}
			digests = append(digests, p.Digest)
			if p.SizeBytes > most {
				t.Errorf("%s: %d bytes, want at most %d", arch, p.SizeBytes, most)
			}
		}
		if digests[0] != digests[1] {
			t.Errorf("%s: two builds differ: %v", arch, digests)
		}
	}
}

// TestDriverPack builds the NVIDIA pack for both architectures, installs it and
// asks its program, which reports no device on a map without GPUs.
func TestDriverPack(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip(err)
	}
	if _, err := debian.FindTool(t.Context(), "mkfs.erofs"); err != nil {
		t.Skipf("needs mkfs.erofs: %v", err)
	}
	var mine *Info
	for _, arch := range []string{"amd64", "arm64"} {
		p, err := Build(t.Context(), BuildOptions{Name: "nvidia", Arch: arch, Out: t.TempDir(), Source: "."})
		if err != nil {
			t.Fatal(err)
		}
		if p.SizeBytes > 8<<20 || len(p.Engines) != 0 {
			t.Errorf("%s: %d bytes with engines %v, want a driver pack of at most 8 MiB", arch, p.SizeBytes, p.Engines)
		}
		if arch == runtime.GOARCH {
			mine = p
		}
	}
	if os.Geteuid() != 0 || mine == nil {
		t.Skip("mounting packs needs root")
	}
	raw, err := os.ReadFile(mine.File)
	if err != nil {
		t.Fatal(err)
	}
	s, c, _ := openTestStore(t)
	_, err = c.install(s, raw)
	skipUnmountable(t, err)
	if err != nil {
		t.Fatal(err)
	}
	_, root, err := s.Mount("nvidia")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Remove("nvidia")
	program := exec.Command(filepath.Join(root, DriversPath, "oscine-nvml"), "probe")
	program.Stdin = strings.NewReader(`{"schema":"oscine.dev/hardware/v1"}`)
	if out, err := program.CombinedOutput(); err != nil || !strings.Contains(string(out), `"schema":"oscine.dev/driver/v1"`) {
		t.Errorf("the pack's program: %s, %v", out, err)
	}
}

func TestBuildRefuses(t *testing.T) {
	if _, err := Build(t.Context(), BuildOptions{Arch: "mips", Out: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "use amd64 or arm64") {
		t.Errorf("got %v", err)
	}
	if _, err := sourceRoot(t.TempDir()); err == nil || !strings.Contains(err.Error(), "is not inside the source of Oscine") {
		t.Errorf("got %v", err)
	}
}
