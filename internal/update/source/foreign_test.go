package source

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/keys"
	"oscine.dev/oscine/internal/update/repository"
	"oscine.dev/oscine/internal/update/repository/repositorytest"
)

// cached returns where a script of scripts installed others' clients, or skips
// the test.
func cached(t *testing.T, kind, pins, script string) string {
	t.Helper()
	text, err := os.ReadFile(pins)
	if err != nil {
		t.Fatal(err)
	}
	cache := os.Getenv("OSCINE_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			t.Skip(err)
		}
		cache = filepath.Join(user, "oscine")
	}
	digest := sha256.Sum256(text)
	folder := filepath.Join(cache, kind+"-clients-"+hex.EncodeToString(digest[:])[:16])
	if _, err := os.Stat(filepath.Join(folder, "complete")); err != nil {
		t.Skipf("needs others' TUF clients: run %s: %v", script, err)
	}
	return folder
}

func pythonTUF(t *testing.T) string {
	t.Helper()
	return filepath.Join(cached(t, "python", "testdata/python-tuf.txt", "scripts/python-clients.sh internal/update/source/testdata/python-tuf.txt"), "bin", "python")
}

func tufJS(t *testing.T) string {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skipf("needs Node.js: %v", err)
	}
	t.Setenv("NODE_CLIENTS", cached(t, "node", "testdata/tuf-js/package-lock.json", "scripts/node-clients.sh internal/update/source/testdata/tuf-js"))
	return node
}

// TestPythonTUFReadsOurs and TestTUFJSReadsOurs let others' clients, unchanged,
// follow a rotation of root and read every target of a folder of ours.
func TestPythonTUFReadsOurs(t *testing.T) {
	readsOurs(t, pythonTUF(t), "testdata/read_tuf.py")
}

func TestTUFJSReadsOurs(t *testing.T) {
	readsOurs(t, tufJS(t), "testdata/read_tuf.js")
}

func readsOurs(t *testing.T, program, script string) {
	dir, r, root := repositorytest.New(t, repository.Options{}, "1.0.0", "1.1.0")
	old := r.Keys()
	fresh := repositorytest.Keys(t, "timestamp", "root")
	r = repository.Open(dir, append(old, fresh...), repository.Options{})
	for _, k := range fresh {
		if result, err := r.Rotate(repository.Rotation{Role: k.Name, Add: []*keys.Key{k}, Threshold: 2}); err != nil || !result.Published {
			t.Fatalf("%+v, %v", result, err)
		}
	}
	s := client(t, dir, root, func(o *update.Options) { o.Now = time.Now })
	v, err := s.refresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	rootFile := filepath.Join(t.TempDir(), "root.json")
	if err := os.WriteFile(rootFile, root, 0o600); err != nil {
		t.Fatal(err)
	}
	args, want := []string{script, server.URL, rootFile, filepath.Join(t.TempDir(), "state")}, map[string]string{}
	for name, info := range v.targets {
		args = append(args, name)
		want[name] = info.Hashes["sha256"].String()
	}
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := 0
	for line := range strings.Lines(string(out)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		if want[name] != sum {
			t.Errorf("%s: it read %s, we signed %s", name, sum, want[name])
		}
		got++
	}
	if got != len(want) || got < 8 {
		t.Errorf("it read %d of %d targets: %s", got, len(want), out)
	}
	// What was changed is refused by them as well.
	flip(t, filepath.Join(dir, "metadata", "timestamp.json"))
	args[3] = filepath.Join(t.TempDir(), "state")
	if out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err == nil {
		t.Errorf("it took a changed timestamp: %s", out)
	}
}

// TestPythonTUFWritesOurs reads and fetches from a repository that python-tuf
// made: other kinds of keys, a threshold, a rotation, a delegation.
func TestPythonTUFWritesOurs(t *testing.T) {
	python := pythonTUF(t)
	dir, _, _ := publish(t, "1.0.0", "1.1.0")
	files, out := t.TempDir(), filepath.Join(t.TempDir(), "repository")
	err := fs.WalkDir(os.DirFS(filepath.Join(dir, "targets")), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, "targets", name))
		if err != nil {
			return err
		}
		_, plain, _ := strings.Cut(path.Base(name), ".") // without the digest
		to := filepath.Join(files, path.Dir(name), plain)
		return errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, text, 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
	expires := start.Add(24 * time.Hour).Format("2006-01-02T15:04:05")
	if said, err := exec.CommandContext(t.Context(), python, "testdata/write_tuf.py", files, out, expires).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	root, err := os.ReadFile(filepath.Join(out, "metadata", "1.root.json"))
	if err != nil {
		t.Fatal(err)
	}
	accepts(t, client(t, out, root), "[1.1.0 1.0.0]")
	if err := upgrade(t, out, root); err != nil {
		t.Error(err)
	}
	refuses(t, client(t, out, root, func(o *update.Options) { o.Now = at(start.Add(25 * time.Hour)) }), update.ErrExpired)
	bad := saved(t, out)
	text, err := os.ReadFile(filepath.Join(bad, "metadata", "timestamp.json"))
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.Replace(string(text), expires, start.Add(240*time.Hour).Format("2006-01-02T15:04:05"), 1))
	if err := os.WriteFile(filepath.Join(bad, "metadata", "timestamp.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	refuses(t, client(t, bad, root), update.ErrSignature)
}
