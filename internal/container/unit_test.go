package container

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestPrefixes(t *testing.T) {
	for _, test := range []struct {
		allow string
		name  string
		ok    bool
	}{
		{"", "docker.io/library/nginx:1", false},
		{"*", "docker.io/library/nginx:1", true},
		{"ghcr.io", "ghcr.io/acme/web:1", true},
		{"ghcr.io", "ghcr.io.evil.test/acme/web:1", false},
		{"ghcr.io/acme/", "ghcr.io/acme/web:1", true},
		{"ghcr.io/acme", "ghcr.io/acme-evil/web:1", false},
		{"ghcr.io/acme/web", "ghcr.io/acme/web@sha256:00", true},
		{"ghcr.io/acme/web:1", "ghcr.io/acme/web:1", true},
		{"ghcr.io/acme/web:1", "ghcr.io/acme/web:12", false},
	} {
		err := prefixes{test.allow}.check("pull", test.name)
		if (err == nil) != test.ok || err != nil && !errors.Is(err, ErrDenied) {
			t.Errorf("%q allows %s: %v, want %v", test.allow, test.name, err, test.ok)
		}
	}
	if err := prefixes(nil).check("pull", "x"); !errors.Is(err, ErrDenied) {
		t.Errorf("no prefix at all: %v", err)
	}
}

func TestNormalize(t *testing.T) {
	for ref, want := range map[string]string{
		"nginx":              "docker.io/library/nginx:latest",
		"acme/web:2":         "docker.io/acme/web:2",
		"localhost:5000/a/b": "localhost:5000/a/b:latest",
		"":                   "",
		"UPPER":              "",
		"a b":                "",
	} {
		if got, err := normalize(ref); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", ref, got, err, want)
		}
	}
}

func TestUIDBase(t *testing.T) {
	taken := map[uint32]bool{}
	for range 100 {
		base, err := uidBase("same", taken)
		if err != nil || base < firstUID || base%uidsEach != 0 || taken[base] {
			t.Fatalf("got %d, %v", base, err)
		}
		taken[base] = true
	}
	for i := range uint32(uidSlots) {
		taken[firstUID+i*uidsEach] = true
	}
	if _, err := uidBase("one more", taken); err == nil {
		t.Error("more containers than ranges")
	}
}

func TestKeyedLock(t *testing.T) {
	var k keyedLock
	if err := k.Lock(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := k.Lock(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := k.Lock(short, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("locked twice: %v", err)
	}
	k.Unlock("a")
	k.Unlock("b")
	if err := k.Lock(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	k.Unlock("a")
	if len(k.held) > 0 {
		t.Errorf("keys are kept: %v", k.held)
	}
}

func TestMergeEnv(t *testing.T) {
	got := mergeEnv([]string{"PATH=/bin", "A=1"}, []string{"A=2", "B"}, []string{"PATH=/x", "C=a=b"})
	if diff := cmp.Diff([]string{"PATH=/x", "A=2", "B", "C=a=b"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestResolvConf(t *testing.T) {
	const node = "# local\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 10.0.0.1\nsearch example.test\n"
	if got, want := resolvConf(node, false), "# local\nnameserver 10.0.0.1\nsearch example.test\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := resolvConf(node, true); got != node {
		t.Errorf("got %q", got)
	}
}

func TestArgs(t *testing.T) {
	image := ocispec.ImageConfig{Entrypoint: []string{"/run"}, Cmd: []string{"by", "image"}}
	for _, test := range []struct {
		spec Spec
		want string
	}{
		{Spec{}, "/run by image"},
		{Spec{Args: []string{"mine"}}, "/run mine"},
		{Spec{Entrypoint: []string{"/other"}}, "/other"},
		{Spec{Entrypoint: []string{"/other"}, Args: []string{"mine"}}, "/other mine"},
	} {
		got, err := plan{spec: test.spec, image: image}.args()
		if err != nil || strings.Join(got, " ") != test.want {
			t.Errorf("%+v: %q, %v, want %q", test.spec, got, err, test.want)
		}
	}
}

func TestResources(t *testing.T) {
	r := Limits{CPUs: "0-3", MemoryNodes: "1", MilliCPU: 1500, MemoryBytes: 1 << 30, PIDs: 7}.resources()
	if *r.CPU.Quota != 150_000 || *r.CPU.Period != 100_000 || r.CPU.Cpus != "0-3" || r.CPU.Mems != "1" || *r.Memory.Limit != 1<<30 || *r.Memory.Swap != 1<<30 || *r.Pids.Limit != 7 {
		t.Errorf("got %+v %+v %+v", r.CPU, r.Memory, r.Pids)
	}
	r = Limits{}.resources()
	if r.CPU.Quota != nil || r.Memory != nil || r.Pids != nil || len(r.Devices) != 1 || r.Devices[0].Allow {
		t.Errorf("no limits: %+v", r)
	}
	if r = (Limits{MilliCPU: 1}).resources(); *r.CPU.Quota != 1000 {
		t.Errorf("a thousandth of a core: %d", *r.CPU.Quota)
	}
}

// TestSpecWithoutUserNamespace is for hosts that have none: the rest must hold.
func TestSpecWithoutUserNamespace(t *testing.T) {
	spec := Spec{ID: "x", Entrypoint: []string{"/x"}, NetNS: "/run/netns/x"}
	s, err := plan{spec: spec, user: user{UID: nobody, GID: nobody}, etc: "/e"}.ociSpec()
	if err != nil {
		t.Fatal(err)
	}
	if s.Process.User.UID != nobody || !s.Process.NoNewPrivileges || len(s.Process.Capabilities.Bounding) > 0 || s.Linux.Seccomp == nil || !s.Root.Readonly {
		t.Errorf("%+v", s.Process)
	}
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == specs.UserNamespace || ns.Type == specs.NetworkNamespace && ns.Path != "/run/netns/x" {
			t.Errorf("%+v", ns)
		}
	}
}

func TestDevices(t *testing.T) {
	dir := t.TempDir()
	const spec = `{"cdiVersion":"0.6.0","kind":"example.com/thing","devices":[{"name":"a","containerEdits":{"env":["THING=a"],"deviceNodes":[{"path":"/dev/null"}]}}]}`
	if err := os.WriteFile(filepath.Join(dir, "thing.json"), []byte(spec), 0o644); err != nil {
		t.Fatal(err)
	}
	s := &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{Resources: &specs.LinuxResources{}}}
	if err := injectDevices(s, []string{"example.com/thing=a"}, []string{dir}); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(s.Process.Env, "THING=a") || len(s.Linux.Devices) != 1 {
		t.Errorf("%+v %+v", s.Process, s.Linux.Devices)
	}
	err := injectDevices(s, []string{"example.com/thing=b"}, []string{dir})
	if err == nil || !strings.Contains(err.Error(), "it has example.com/thing=a") {
		t.Errorf("a device that is not there: %v", err)
	}
}

func FuzzUser(f *testing.F) {
	f.Add("web:x:1000:1001::/:\n", "extra:x:7:web,other\n", "web:extra")
	f.Add("a:b\n:::::\n", ":::", "0:0")
	f.Fuzz(func(t *testing.T, passwd, group, text string) {
		root := t.TempDir()
		if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string]string{"passwd": passwd, "group": group} {
			if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(data), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if u, err := lookupUser(root, text); err == nil && (u.UID >= uidsEach || u.GID >= uidsEach) {
			t.Errorf("%q is %+v", text, u)
		}
	})
}

func FuzzCopyIn(f *testing.F) {
	f.Add(layer(f, file{name: "a/b", content: "x"}, file{name: "up", link: "../..", kind: tar.TypeSymlink}, file{name: "up/x", content: "y"}))
	f.Add(layer(f, file{name: "../x", link: "/etc/passwd", kind: tar.TypeLink}))
	f.Fuzz(func(t *testing.T, data []byte) {
		outer := t.TempDir()
		inner := filepath.Join(outer, "inner")
		if err := os.Mkdir(inner, 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(inner)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		in := tarIn{ctx: t.Context(), root: root, left: 1 << 20}
		_ = in.unpack(bytes.NewReader(data)) // whatever it says, it stays inside
		if entries, err := os.ReadDir(outer); err != nil || len(entries) != 1 {
			t.Errorf("outside: %v, %v", entries, err)
		}
	})
}
