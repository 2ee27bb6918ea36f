package source

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/keys"
	"oscine.dev/oscine/internal/update/repository"
	"oscine.dev/oscine/internal/update/repository/repositorytest"
)

// saved is a copy of a folder as it is now.
func saved(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func refuses(t *testing.T, s *source, want error) {
	t.Helper()
	_, err := s.Releases(t.Context(), "amd64", "cloud")
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
	// Each reason is one of its own.
	for _, other := range []error{update.ErrSignature, update.ErrExpired, update.ErrFrozen, update.ErrRollback, update.ErrMixed, update.ErrTooLong, update.ErrDamaged, update.ErrUnreachable} {
		if other != want && errors.Is(err, other) {
			t.Errorf("%v is also %v", err, other)
		}
	}
}

func accepts(t *testing.T, s *source, want string) {
	t.Helper()
	list, err := s.Releases(t.Context(), "amd64", "cloud")
	if got := fmt.Sprint(versions(list)); err != nil || got != want {
		t.Errorf("got %v, %v, want %s", got, err, want)
	}
}

// A node that saw newer metadata does not go back, even where the old one is
// signed and not expired.
func TestRollbackAttack(t *testing.T) {
	dir, r, root := publish(t, "1.0.0")
	old := saved(t, dir)
	repositorytest.Add(t, r, "1.1.0")
	state := func(o *update.Options) { o.State = filepath.Join(filepath.Dir(dir), "state") }
	accepts(t, client(t, dir, root, state), "[1.1.0 1.0.0]")
	refuses(t, client(t, old, root, state), update.ErrRollback)
	accepts(t, client(t, dir, root, state), "[1.1.0 1.0.0]") // and is not spoiled by it
	accepts(t, client(t, old, root), "[1.0.0]")              // a node that saw nothing cannot know
}

// Old metadata, kept on being served, runs out.
func TestFreezeAttack(t *testing.T) {
	dir, r, root := publish(t, "1.0.0")
	late := func(o *update.Options) { o.Now = at(start.Add(8 * 24 * time.Hour)) }
	state := func(o *update.Options) { o.State = filepath.Join(filepath.Dir(dir), "state") }
	accepts(t, client(t, dir, root, state), "[1.0.0]")
	refuses(t, client(t, dir, root, state, late), update.ErrFrozen)
	refuses(t, client(t, dir, root, late), update.ErrFrozen)
	// Signing again is enough.
	r2 := reopen(t, dir, r, start.Add(8*24*time.Hour))
	if result, err := r2.Sign(); err != nil || !result.Published {
		t.Fatalf("%+v, %v", result, err)
	}
	accepts(t, client(t, dir, root, state, late), "[1.0.0]")
}

// reopen is the folder at another time.
func reopen(t *testing.T, dir string, r *repository.Repository, now time.Time) *repository.Repository {
	t.Helper()
	return repository.Open(dir, r.Keys(), repository.Options{Now: at(now)})
}

// Parts of two publications, each signed, are not put together.
func TestMixAndMatchAttack(t *testing.T) {
	dir, r, root := publish(t, "1.0.0") // targets 1, releases 2, snapshot 2
	old := saved(t, dir)
	repositorytest.Add(t, r, "1.1.0") // releases 3, snapshot 3
	for name, mix := range map[string]func(bad string){
		"old timestamp's snapshot as the new": func(bad string) { rename(t, old, "metadata/2.snapshot.json", bad, "metadata/3.snapshot.json") },
		"old releases as the new":             func(bad string) { rename(t, old, "metadata/2.releases.json", bad, "metadata/3.releases.json") },
		"another role's metadata":             func(bad string) { rename(t, old, "metadata/1.targets.json", bad, "metadata/3.releases.json") },
	} {
		t.Run(name, func(t *testing.T) {
			bad := saved(t, dir)
			mix(bad)
			s := client(t, bad, root)
			_, err := s.Releases(t.Context(), "amd64", "cloud")
			if !errors.Is(err, update.ErrMixed) && !errors.Is(err, update.ErrTooLong) {
				t.Errorf("got %v", err)
			}
		})
	}
	bad := saved(t, dir) // of equal length, so that only the digest tells
	flip(t, filepath.Join(bad, "metadata/3.releases.json"))
	refuses(t, client(t, bad, root), update.ErrMixed)
}

func rename(t *testing.T, from, name, to, as string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(from, name))
	if err == nil {
		err = os.WriteFile(filepath.Join(to, as), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// flip changes one letter of a file's values.
func flip(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.LastIndex(text, []byte(`"sig": "`)) + len(`"sig": "`)
	if text[i] != '0' { // another hex digit
		text[i] = '0'
	} else {
		text[i] = '1'
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// endless sends a file without an end.
type endless struct {
	files http.Handler
	name  string
}

func (e endless) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, e.name) {
		e.files.ServeHTTP(w, r)
		return
	}
	for {
		if _, err := w.Write(bytes.Repeat([]byte(" "), 64<<10)); err != nil {
			return
		}
	}
}

func TestEndlessData(t *testing.T) {
	dir, _, root := publish(t, "1.0.0")
	for _, name := range []string{"2.root.json", "timestamp.json", "2.snapshot.json", "2.releases.json", "manifest.json"} {
		server := httptest.NewServer(endless{http.FileServer(http.Dir(dir)), name})
		refuses(t, client(t, server.URL, root), update.ErrTooLong)
		server.CloseClientConnections()
		server.Close()
	}
	// A transfer is read no further than its parts.
	s := client(t, dir, root)
	list, err := s.Releases(t.Context(), "amd64", "cloud")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(endless{http.FileServer(http.Dir(dir)), ".root"})
	defer server.Close()
	defer server.CloseClientConnections()
	if err := client(t, server.URL, root).Fetch(t.Context(), &list[0].Root, nil, slot(t), nil); !errors.Is(err, update.ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

func TestExpired(t *testing.T) {
	year := 365 * 24 * time.Hour
	for role, change := range map[string]func(*repository.Expiry){
		"root": func(e *repository.Expiry) { e.Root = time.Hour }, "targets": func(e *repository.Expiry) { e.Targets = time.Hour },
		"snapshot": func(e *repository.Expiry) { e.Snapshot = time.Hour },
	} {
		t.Run(role, func(t *testing.T) {
			expiry := repository.Expiry{Root: year, Targets: year, Snapshot: year, Timestamp: year}
			change(&expiry)
			dir, _, root := repositorytest.New(t, repository.Options{Now: at(start), Expiry: expiry}, "1.0.0")
			late := func(o *update.Options) { o.Now = at(start.Add(24 * time.Hour)) }
			state := func(o *update.Options) { o.State = filepath.Join(filepath.Dir(dir), "state") }
			accepts(t, client(t, dir, root, state), "[1.0.0]")
			refuses(t, client(t, dir, root, state, late), update.ErrExpired)
			refuses(t, client(t, dir, root, late), update.ErrExpired)
		})
	}
}

func TestWrongSignature(t *testing.T) {
	dir, _, root := publish(t, "1.0.0")
	_, _, other := publish(t)
	refuses(t, client(t, dir, other), update.ErrSignature)
	bad := saved(t, dir)
	flip(t, filepath.Join(bad, "metadata/timestamp.json"))
	refuses(t, client(t, bad, root), update.ErrSignature)
}

// Whatever file that a node reads is cut off or has a flipped bit, nothing is
// installed.
func TestDamagedFolder(t *testing.T) {
	dir, _, root := publish(t, "1.0.0", "1.1.0")
	var mu sync.Mutex
	read := map[string]bool{}
	files := http.FileServer(http.Dir(dir))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := os.Stat(filepath.Join(dir, r.URL.Path)); err == nil {
			mu.Lock()
			read[r.URL.Path] = true
			mu.Unlock()
		}
		files.ServeHTTP(w, r)
	}))
	defer server.Close()
	if err := upgrade(t, server.URL, root); err != nil {
		t.Fatal(err)
	}
	if len(read) < 10 { // four of metadata, two manifests, two full transfers and two deltas
		t.Errorf("few files were read: %v", read)
	}
	for path := range read {
		name := filepath.Join(dir, path)
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for how, bad := range map[string][]byte{"cut off": whole[:len(whole)/2], "changed": changed(whole)} {
			if err := os.WriteFile(name, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := upgrade(t, dir, root); err == nil {
				t.Errorf("%s, %s, was taken", path, how)
			}
		}
		if err := os.WriteFile(name, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := upgrade(t, dir, root); err != nil {
		t.Fatal(err)
	}
}

func changed(whole []byte) []byte {
	bad := bytes.Clone(whole)
	bad[len(bad)/2] ^= 1
	return bad
}

// upgrade fetches the newest release by every way that it is offered.
func upgrade(t *testing.T, dir string, root []byte) error {
	s := client(t, dir, root)
	list, err := s.Releases(t.Context(), "amd64", "cloud")
	if err != nil {
		return err
	}
	for _, c := range []update.Content{list[0].Root, list[0].Image} {
		for _, way := range append([]update.Transfer{c.Full}, c.Deltas...) {
			only := c
			only.Full, only.Deltas = way, nil
			var base *update.Base
			if way.Base != "" {
				old := slot(t)
				content := list[1].Root
				if way.Base != list[1].RootHash {
					content = list[1].Image
				}
				if err := s.Fetch(t.Context(), &content, nil, old, nil); err != nil {
					return err
				}
				base = &update.Base{ID: way.Base, Size: content.Size, Data: old}
			}
			if err := s.Fetch(t.Context(), &only, base, slot(t), nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// A clock that never was set is behind the time at which the running release was
// built, and counts as that. Metadata that had expired then is refused.
func TestClockAt1970(t *testing.T) {
	dir, _, root := publish(t, "1.0.0")
	epoch := func(o *update.Options) { o.Now = at(time.Unix(0, 0)) }
	built := func(when time.Time) func(*update.Options) { return func(o *update.Options) { o.NotBefore = when } }
	accepts(t, client(t, dir, root, epoch, built(start.Add(-time.Hour))), "[1.0.0]")
	accepts(t, client(t, dir, root, epoch, built(start.Add(6*24*time.Hour))), "[1.0.0]")
	refuses(t, client(t, dir, root, epoch, built(start.Add(8*24*time.Hour))), update.ErrFrozen)
	// A sound clock is ahead of the build and counts itself.
	refuses(t, client(t, dir, root, built(start), func(o *update.Options) { o.Now = at(start.Add(8 * 24 * time.Hour)) }), update.ErrFrozen)
}

// Nodes follow a rotation of every role, and what the old keys sign then is
// refused.
func TestKeyRotation(t *testing.T) {
	dir, r, root := publish(t, "1.0.0")
	stolen := r.Keys()
	old := saved(t, dir)
	fresh := repositorytest.Keys(t, "root", "targets", "snapshot", "timestamp", "releases")
	r = repository.Open(dir, append(stolen, fresh...), repository.Options{Now: at(start)})
	for _, k := range fresh {
		rotation := repository.Rotation{Role: k.Name, Add: []*keys.Key{k}}
		for _, s := range stolen {
			if s.Name == k.Name {
				rotation.Remove = []string{s.ID[:8]}
			}
		}
		if result, err := r.Rotate(rotation); err != nil || !result.Published {
			t.Fatalf("%s: %+v, %v", k.Name, result, err)
		}
	}
	r = repository.Open(dir, fresh, repository.Options{Now: at(start)})
	repositorytest.Add(t, r, "1.1.0")
	state := func(o *update.Options) { o.State = filepath.Join(filepath.Dir(dir), "state") }
	accepts(t, client(t, dir, root, state), "[1.1.0 1.0.0]")
	// Who stole the old keys can make what was once right, and no more.
	thief := repository.Open(old, stolen, repository.Options{Now: at(start)})
	for range 20 {
		if _, err := thief.Sign(); err != nil {
			t.Fatal(err)
		}
	}
	bad := saved(t, dir)
	rename(t, old, "metadata/timestamp.json", bad, "metadata/timestamp.json")
	refuses(t, client(t, bad, root, state), update.ErrSignature)
	refuses(t, client(t, bad, root), update.ErrSignature)
	refuses(t, client(t, old, root, state), update.ErrSignature)
}

// A delegated role offers only the paths that it was given.
func TestDelegatedPaths(t *testing.T) {
	dir, r, root := publish(t, "1.0.0")
	file := filepath.Join(dir, "metadata/2.releases.json")
	m, err := metadata.Targets().FromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const may, mayNot = "9.9.9/amd64-cloud/models/m.onnx", "models/m.onnx"
	for _, path := range []string{may, mayNot} {
		if m.Signed.Targets[path], err = metadata.TargetFile().FromBytes(path, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	m.ClearSignatures()
	for _, k := range r.Keys() {
		if k.Name != repository.Releases {
			continue
		}
		if _, err := m.Sign(k.Signer); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.ToFile(file, true); err != nil {
		t.Fatal(err)
	}
	if result, err := r.Sign(); err != nil || !result.Published {
		t.Fatalf("%+v, %v", result, err)
	}
	s := client(t, dir, root)
	accepts(t, s, "[1.0.0]")
	v, err := s.refresh(t.Context())
	if err != nil || v.targets[may] == nil || v.targets[mayNot] != nil {
		t.Errorf("got %v, %v", v, err)
	}
}

// A terminating delegation keeps those after it from its paths.
func TestTerminatingDelegation(t *testing.T) {
	top := delegation{may: func(string) bool { return true }}
	roles := []metadata.DelegatedRole{{Name: "a", Paths: []string{"x/*"}, Terminating: true}, {Name: "b", Paths: []string{"x/*", "y/*"}}}
	all := top.children(roles, []delegation{{role: "c", may: func(string) bool { return true }}})
	for path, want := range map[string]string{"x/1": "a", "y/1": "b c", "z/1": "c"} {
		var may []string
		for _, d := range all {
			if d.may(path) {
				may = append(may, d.role)
			}
		}
		if got := strings.Join(may, " "); got != want {
			t.Errorf("%s: %q may offer it, want %q", path, got, want)
		}
	}
}
