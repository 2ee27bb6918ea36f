package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

func TestEmbeddedLockIsComplete(t *testing.T) {
	lock, err := Embedded()
	if err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		for _, name := range []string{"kernel-cloud", "kernel-metal", "kernel-rt", "boot", "runtime", "certificates", "tools", "tpm"} {
			if set, err := lock.Set(name, arch); err != nil || len(set.Packages) == 0 {
				t.Errorf("set %s of %s: %d packages, error %v", name, arch, len(set.Packages), err)
			}
		}
	}
	if _, err := lock.Set("tools", "riscv64"); err == nil {
		t.Error("an architecture that is not pinned was found")
	}
}

func TestParseLockRefusesPathsThatLeaveTheMirror(t *testing.T) {
	good := `{"sets":[{"name":"x1","arch":"amd64","packages":[{"name":"abc","version":"1","arch":"all","suite":"trixie","path":"%s","size":%d,"sha256":"%s"}]}]}`
	digest := strings.Repeat("0a", 32)
	if _, err := ParseLock(fmt.Appendf(nil, good, "pool/main/a/abc_1_all.deb", 5, digest)); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		fmt.Sprintf(good, "pool/../../etc/passwd.deb", 5, digest), fmt.Sprintf(good, "/pool/a.deb", 5, digest),
		fmt.Sprintf(good, "pool/a b.deb", 5, digest), fmt.Sprintf(good, "pool/a.deb", 0, digest),
		fmt.Sprintf(good, "pool/a.deb", 5, "../x"), `{"sets":[{"name":"..","arch":"amd64"}]}`, `{"unknown":1}`, `[`,
	} {
		if _, err := ParseLock([]byte(bad)); err == nil {
			t.Errorf("accepted %s", bad)
		}
	}
}

// ordered is a list of versions, each older than the next (Debian Policy
// §5.6.12 and the cases of dpkg's own tests).
var ordered = []string{"0~~", "0~~a", "0~", "0", "0a", "0.1~rc1", "0.1", "0.1-1", "0.1-1+b1", "0.2", "0.10", "1.0~rc1-1", "1.0-1", "1.0a", "1.0+dfsg-1", "1:0", "2:0~", "2:0", "10:0"}

func TestCompareVersions(t *testing.T) {
	for i, a := range ordered {
		for j, b := range ordered {
			got, want := CompareVersions(a, b), i-j
			if got < 0 != (want < 0) || got > 0 != (want > 0) {
				t.Errorf("CompareVersions(%q, %q) = %d, want the sign of %d", a, b, got, want)
			}
		}
	}
	if c := CompareVersions("1.01-1", "1.1-1"); c != 0 {
		t.Errorf("leading zeros: got %d, want 0", c)
	}
}

// A container's image comes without lists of packages.
func TestMirrorOfAptWithoutLists(t *testing.T) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skipf("needs apt-get: %v", err)
	}
	dir := t.TempDir()
	sources, config := filepath.Join(dir, "sources.list"), filepath.Join(dir, "apt.conf")
	text := fmt.Sprintf("Dir::Etc::sourcelist %q; Dir::Etc::sourceparts \"/dev/null\"; Dir::State::lists %q;\n", sources, filepath.Join(dir, "lists"))
	if err := os.WriteFile(sources, []byte("deb http://mirror.example/debian bookworm main\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("APT_CONFIG", config)
	t.Setenv("OSCINE_DEBIAN_MIRROR", "")
	got, err := Mirror(t.Context())
	if want := "http://mirror.example/debian"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestMirrorOfApt(t *testing.T) {
	for _, c := range []struct{ name, targets, want string }{
		{"debian", "x|http://mirror.example/debian|bookworm|main\n", "http://mirror.example/debian"},
		{"security first", "x|http://s.example/debian-security|bookworm-security|main\nx|https://m.example/debian/|trixie|main\n", "https://m.example/debian"},
		{"derivative", "x|http://archive.example/ubuntu|noble|main\n", ""},
		{"no main", "x|http://mirror.example/debian|bookworm|contrib\n", ""},
		{"garbage", "a|b\n\n|||\n", ""},
	} {
		if got := aptMirror([]byte(c.targets)); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	script := "#!/bin/sh\nDEF_MIRROR=\"http://default.example/debian\"\n"
	if got, want := scriptMirror([]byte(script)), "http://default.example/debian"; got != want {
		t.Errorf("debootstrap's default: got %q, want %q", got, want)
	}
	t.Setenv("OSCINE_DEBIAN_MIRROR", "not a url")
	if _, err := Mirror(t.Context()); err == nil || !strings.Contains(err.Error(), "OSCINE_DEBIAN_MIRROR") {
		t.Errorf("a broken OSCINE_DEBIAN_MIRROR: got error %v", err)
	}
}

const stanzas = `Package: abc
Version: 1.0-1
Architecture: all
Depends: def (>= 2) | ghi, jkl:any
Filename: pool/main/a/abc/abc_1.0-1_all.deb
Size: 12
SHA256: 0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a
Description: words
 more words: here

Package: ghi
Version: 3
Architecture: amd64
Provides: jkl (= 3)
Filename: pool/main/g/ghi/ghi_3_amd64.deb
Size: 7
SHA256: 0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b
`

func TestClosureFollowsAlternativesAndProvides(t *testing.T) {
	records, err := ParsePackages(strings.NewReader(stanzas), "trixie")
	if err != nil {
		t.Fatal(err)
	}
	x := &Index{Records: records}
	got, err := x.Closure("amd64", "trixie", []string{"abc"}, func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Package{records[0].Package, records[1].Package}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := x.Closure("arm64", "trixie", []string{"abc"}, func(string) bool { return false }); err == nil {
		t.Error("a dependency that the architecture lacks was not missed")
	}
}

func FuzzParsePackages(f *testing.F) {
	f.Add(stanzas)
	f.Add("Package: x\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		records, err := ParsePackages(strings.NewReader(text), "trixie")
		for _, r := range records {
			if err == nil && r.check() != nil {
				t.Errorf("accepted %+v", r)
			}
		}
	})
}

// entryOf is one entry of a made package.
type entryOf struct {
	name, link, data string
	kind             byte
}

// makeDeb writes a .deb with the given entries, compressed with zstd.
func makeDeb(t testing.TB, entries ...entryOf) []byte {
	t.Helper()
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Linkname: e.link, Typeflag: e.kind, Mode: 0o4755, Size: int64(len(e.data))}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	data := z.EncodeAll(plain.Bytes(), nil)
	member := func(name string, data []byte) []byte {
		out := fmt.Appendf(nil, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, 0, 0, 0, "100644", len(data))
		out = append(out, data...)
		return append(out, make([]byte, len(data)%2)...)
	}
	out := append([]byte("!<arch>\n"), member("debian-binary", []byte("2.0\n"))...)
	return append(append(out, member("control.tar.zst", []byte("odd"))...), member("data.tar.zst", data)...)
}

func unpackBytes(t testing.TB, deb []byte) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "x.deb")
	if err := os.WriteFile(file, deb, 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return dir, Unpack(context.Background(), file, dir, useful)
}

func TestUnpack(t *testing.T) {
	hole := strings.Repeat("\x00", 300<<10)
	dir, err := unpackBytes(t, makeDeb(t,
		entryOf{"./", "", "", tar.TypeDir}, entryOf{"./usr/bin/", "", "", tar.TypeDir},
		entryOf{"./usr/bin/a", "", "program", tar.TypeReg}, entryOf{"./usr/bin/b", "a", "", tar.TypeSymlink},
		entryOf{"./usr/bin/c", "./usr/bin/a", "", tar.TypeLink}, entryOf{"./usr/share/man/a.1", "", "no", tar.TypeReg},
		entryOf{"./usr/lib/zero", "", hole + "end", tar.TypeReg}))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"usr/bin/a": "program", "usr/bin/b": "program", "usr/bin/c": "program", "usr/lib/zero": hole + "end"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: got %d bytes (%v), want %d", name, len(got), err, len(want))
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "usr/bin/a")); err != nil || info.Mode() != 0o755 {
		t.Errorf("mode: got %v (%v), want 0755 without set-user-ID", info.Mode(), err)
	}
	if _, err := os.Stat(filepath.Join(dir, "usr/share/man")); err == nil {
		t.Error("manual pages were unpacked")
	}
}

func TestUnpackStaysInside(t *testing.T) {
	for name, entries := range map[string][]entryOf{
		"parent":       {{"../escaped", "", "x", tar.TypeReg}},
		"absolute":     {{"/tmp/../../escaped", "", "x", tar.TypeReg}},
		"link":         {{"./out", "../..", "", tar.TypeSymlink}, {"./out/escaped", "", "x", tar.TypeReg}},
		"hard link":    {{"./x", "../../../etc/hostname", "", tar.TypeLink}},
		"device":       {{"./dev/sda", "", "", tar.TypeBlock}},
		"dot dot dirs": {{"./a/../../escaped/", "", "", tar.TypeDir}},
	} {
		dir, err := unpackBytes(t, makeDeb(t, entries...))
		if err == nil {
			t.Errorf("%s: unpacked without an error", name)
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(dir), "escaped")); err == nil {
			t.Errorf("%s: wrote outside of its folder", name)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(makeDeb(f, entryOf{"./usr/bin/a", "", "program", tar.TypeReg}))
	f.Add([]byte("!<arch>\n"))
	f.Fuzz(func(t *testing.T, deb []byte) {
		if bytes.Contains(deb, []byte("data.tar.xz")) {
			t.Skip("would start a process for each input")
		}
		dir, _ := unpackBytes(t, deb)
		if _, err := os.Stat(filepath.Join(filepath.Dir(dir), "escaped")); err == nil {
			t.Error("wrote outside of its folder")
		}
	})
}

// serve offers files as a mirror on the loopback.
func serve(t *testing.T, files map[string][]byte) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(data)
	}))
	t.Cleanup(server.Close)
	t.Setenv("OSCINE_DEBIAN_MIRROR", server.URL)
	return server
}

func packageOf(name string, deb []byte) Package {
	sum := sha256.Sum256(deb)
	return Package{Name: name, Version: "1", Arch: "all", Suite: "trixie", Path: "pool/" + name + "+1_all.deb", Size: int64(len(deb)), SHA256: hex.EncodeToString(sum[:])}
}

func TestTreeFetchesOnceAndVerifies(t *testing.T) {
	deb := makeDeb(t, entryOf{"./usr/bin/a", "", "program", tar.TypeReg})
	p := packageOf("abc", deb)
	server := serve(t, map[string][]byte{"/" + p.Path: deb})
	lock := &Lock{Sets: []Set{{Name: "one", Arch: "all", Packages: []Package{p}}}}
	cache := t.TempDir()
	tree, err := newSource(cache, lock, nil).Tree(t.Context(), "one", "all")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(tree.Dir, "usr/bin/a")); err != nil || string(got) != "program" {
		t.Fatalf("got %q (%v)", got, err)
	}
	server.Close() // the second time must not need it
	if _, err := newSource(cache, lock, nil).Tree(t.Context(), "one", "all"); err != nil {
		t.Error(err)
	}
}

func TestFetchRefusesAlteredPackages(t *testing.T) {
	deb := makeDeb(t, entryOf{"./usr/bin/a", "", "program", tar.TypeReg})
	p := packageOf("abc", deb)
	altered := bytes.Clone(deb)
	altered[len(altered)-1] ^= 1
	serve(t, map[string][]byte{"/" + p.Path: altered})
	cache := t.TempDir()
	s := newSource(cache, &Lock{}, nil)
	if _, err := s.Fetch(t.Context(), p); err == nil {
		t.Error("an altered package was accepted")
	}
	if _, err := os.Stat(s.file(p)); err == nil {
		t.Error("an altered package is in the cache")
	}
	rest, err := filepath.Glob(filepath.Join(cache, "fetch-*"))
	if err != nil || len(rest) > 0 {
		t.Errorf("left behind: %v (%v)", rest, err)
	}
}

func TestFetchOverPlainHTTP(t *testing.T) {
	deb := makeDeb(t)
	p := packageOf("abc", deb)
	server := serve(t, map[string][]byte{"/" + p.Path: deb})
	s := newSource(t.TempDir(), &Lock{}, nil)
	s.mirror = server.URL
	dir := t.TempDir()
	if err := s.overHTTP(t.Context(), []Package{p}, dir); err != nil {
		t.Fatal(err)
	}
	if err := verify(filepath.Join(dir, p.SHA256), p); err != nil {
		t.Error(err)
	}
	gone := packageOf("gone", []byte("x"))
	if err := s.overHTTP(t.Context(), []Package{gone}, dir); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a missing package: got error %v", err)
	}
}

func TestFetchNamesWhatTheMirrorLacks(t *testing.T) {
	serve(t, nil)
	p := packageOf("gone", []byte("x"))
	_, err := newSource(t.TempDir(), &Lock{}, nil).Fetch(t.Context(), p)
	var missing *MissingError
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), "gone 1") || !strings.Contains(err.Error(), "OSCINE_DEBIAN_MIRROR") {
		t.Errorf("got error %v", err)
	}
}

func TestReplacementIsRemembered(t *testing.T) {
	deb := makeDeb(t, entryOf{"./usr/bin/a", "", "newer", tar.TypeReg})
	old, newer := packageOf("abc", []byte("gone")), packageOf("abc", deb)
	serve(t, map[string][]byte{"/" + newer.Path: deb})
	set := Set{Name: "one", Arch: "all", Packages: []Package{old}}
	s := newSource(t.TempDir(), &Lock{Sets: []Set{set}}, nil)
	if err := s.remember(set, Set{Name: "one", Arch: "all", Packages: []Package{newer}}); err != nil {
		t.Fatal(err)
	}
	tree, err := s.Tree(t.Context(), "one", "all")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(tree.Dir, "usr/bin/a")); err != nil || string(got) != "newer" {
		t.Errorf("got %q (%v)", got, err)
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	serve(t, nil)
	_, err := newSource(t.TempDir(), &Lock{}, nil).Fetch(ctx, packageOf("gone", []byte("x")))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want context.Canceled", err)
	}
}

func TestVersionIn(t *testing.T) {
	for out, want := range map[string][2]int{
		"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)": {7, 2}, "mkfs.erofs (erofs-utils) 1.8.6\n": {1, 8}, "none": {0, 0}, "99999999999999999999.1": {0, 0},
	} {
		major, minor := versionIn(out)
		if got := [2]int{major, minor}; got != want {
			t.Errorf("versionIn(%q) = %v, want %v", out, got, want)
		}
	}
}
