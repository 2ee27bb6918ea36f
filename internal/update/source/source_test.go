package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/repository"
	"oscine.dev/oscine/internal/update/repository/repositorytest"
)

// start is when the tests' folders are published.
var start = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

// publish makes a folder at the time start.
func publish(t *testing.T, versions ...string) (dir string, r *repository.Repository, root []byte) {
	t.Helper()
	return repositorytest.New(t, repository.Options{Now: at(start)}, versions...)
}

// client is a node's source, with the clock at start. The state is its own.
func client(t *testing.T, where string, root []byte, change ...func(*update.Options)) *source {
	t.Helper()
	o := update.Options{Root: root, State: filepath.Join(t.TempDir(), "state"), Now: at(start)}
	for _, c := range change {
		c(&o)
	}
	s, err := open(where, o)
	if err != nil {
		t.Fatal(err)
	}
	s.wait = time.Millisecond
	t.Cleanup(func() { s.Close() })
	return s
}

func versions(list []*update.Manifest) (all []string) {
	for _, m := range list {
		all = append(all, m.Version)
	}
	return all
}

func TestReleases(t *testing.T) {
	dir, r, root := publish(t, "1.0.0", "1.1.0~rc1")
	if _, err := r.Create(t.Context(), repository.Release{Parts: repositorytest.Parts(t, "2.0.0", "7.2.12+deb13-arm64", repositorytest.Files("2.0.0"))}); err != nil {
		t.Fatal(err)
	}
	repositorytest.Add(t, r, "1.1.0")
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	for _, where := range []string{dir, "file://" + dir, server.URL, server.URL + "/"} {
		s := client(t, where, root)
		for range 2 { // the second time from the state
			list, err := s.Releases(t.Context(), "amd64", "cloud")
			if err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			if got := fmt.Sprint(versions(list)); got != "[1.1.0 1.1.0~rc1 1.0.0]" {
				t.Errorf("%s: got %v", where, got)
			}
			if list, err = s.Releases(t.Context(), "arm64", "metal"); err != nil || fmt.Sprint(versions(list)) != "[2.0.0]" {
				t.Errorf("%s: got %v, %v", where, versions(list), err)
			}
		}
	}
}

// slot is a file that takes a root.
func slot(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "slot"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestFetch(t *testing.T) {
	dir, _, root := publish(t, "1.0.0", "1.1.0")
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	for _, where := range []string{dir, server.URL} {
		s := client(t, where, root)
		list, err := s.Releases(t.Context(), "amd64", "cloud")
		if err != nil {
			t.Fatal(err)
		}
		newer, older := list[0], list[1]
		active := slot(t)
		if err := s.Fetch(t.Context(), &older.Root, nil, active, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Fetch(t.Context(), &older.Image, nil, slot(t), nil); err != nil {
			t.Fatal(err)
		}
		var last update.Progress
		base := &update.Base{ID: older.RootHash, Size: older.Root.Size, Data: active}
		if err := s.Fetch(t.Context(), &newer.Root, base, slot(t), func(p update.Progress) { last = p }); err != nil {
			t.Fatal(err)
		}
		if !last.Delta || last.Done != newer.Root.Size || last.Fetched > 20<<10 {
			t.Errorf("%s: no delta was fetched: %+v", where, last)
		}
		// Old content that is not what it says it is: the full transfer does it.
		base.Data = bytes.NewReader(repositorytest.Noise(9, int(older.Root.Size)))
		if err := s.Fetch(t.Context(), &newer.Root, base, slot(t), func(p update.Progress) { last = p }); err != nil || last.Delta {
			t.Errorf("%s: got %v, %+v", where, err, last)
		}
	}
}

// A connection that breaks off is taken up where it was.
func TestFetchOverBadNetwork(t *testing.T) {
	dir, _, root := publish(t, "1.0.0")
	var asked, sent atomic.Int64
	files := http.FileServer(http.Dir(dir))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		files.ServeHTTP(&shortWriter{ResponseWriter: w, left: 300 << 10, sent: &sent}, r)
	}))
	defer server.Close()
	s := client(t, server.URL, root)
	list, err := s.Releases(t.Context(), "amd64", "cloud")
	if err != nil {
		t.Fatal(err)
	}
	asked.Store(0)
	sent.Store(0)
	if err := s.Fetch(t.Context(), &list[0].Root, nil, slot(t), nil); err != nil {
		t.Fatal(err)
	}
	size := list[0].Root.Full.Size
	if want := size / (300 << 10); asked.Load() < want || sent.Load() > size+100<<10 {
		t.Errorf("%d bytes took %d requests and %d bytes", size, asked.Load(), sent.Load())
	}
}

// shortWriter ends the connection after some bytes.
type shortWriter struct {
	http.ResponseWriter
	left int
	sent *atomic.Int64
}

func (w *shortWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p[:min(len(p), w.left)])
	w.sent.Add(int64(n))
	if w.left -= n; w.left == 0 {
		w.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func TestUnreachable(t *testing.T) {
	_, _, root := publish(t)
	server := httptest.NewServer(http.NotFoundHandler())
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	defer server.Close()
	for name, where := range map[string]string{"empty folder": t.TempDir(), "no metadata": server.URL, "no server": gone.URL} {
		if _, err := client(t, where, root).Releases(t.Context(), "amd64", "cloud"); !errors.Is(err, update.ErrUnreachable) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none"), update.Options{Root: root, State: t.TempDir()}); !errors.Is(err, update.ErrUnreachable) {
		t.Errorf("no folder: got %v", err)
	}
	if _, err := Open(t.TempDir(), update.Options{State: t.TempDir()}); !errors.Is(err, update.ErrSignature) {
		t.Errorf("no root: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client(t, server.URL, root).Releases(ctx, "amd64", "cloud"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
}

func TestFetchPin(t *testing.T) {
	dir, r, root := publish(t)
	pack := filepath.Join(t.TempDir(), "engine.pack")
	data := repositorytest.Noise(7, 1<<20)
	if err := os.WriteFile(pack, data, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := r.Create(t.Context(), repository.Release{Parts: repositorytest.Parts(t, "1.0.0", repositorytest.Kernel, repositorytest.Files("1.0.0")), Packs: []string{pack}, Models: []string{pack}})
	if err != nil {
		t.Fatal(err)
	}
	s := client(t, dir, root)
	list, err := s.Releases(t.Context(), "amd64", "cloud")
	if err != nil {
		t.Fatal(err)
	}
	pin := list[0].Packs[0]
	for have, want := range map[string]error{"": nil, string(data[:1000]): nil, string(data): nil, "something else": update.ErrDamaged} {
		var got bytes.Buffer
		got.WriteString(have)
		err := s.FetchPin(t.Context(), pin, strings.NewReader(have), &got, nil)
		if !errors.Is(err, want) || err == nil && !bytes.Equal(got.Bytes(), data) {
			t.Errorf("with %d bytes: %v, got %d", len(have), err, got.Len())
		}
	}
	// The next release brings another file of the same name.
	next := repositorytest.Noise(8, 1<<20)
	if err := os.WriteFile(pack, next, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = r.Create(t.Context(), repository.Release{Parts: repositorytest.Parts(t, "1.1.0", repositorytest.Kernel, repositorytest.Files("1.1.0")), Packs: []string{pack}, Models: []string{pack}}); err != nil {
		t.Fatal(err)
	}
	s = client(t, dir, root)
	if list, err = s.Releases(t.Context(), "amd64", "cloud"); err != nil || len(list) != 2 {
		t.Fatalf("got %d releases, %v", len(list), err)
	}
	for i, want := range [][]byte{next, data} {
		var got bytes.Buffer
		if err := s.FetchPin(t.Context(), list[i].Packs[0], strings.NewReader(""), &got, nil); err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("the pack of %s: %v, got %d bytes", list[i].Version, err, got.Len())
		}
	}
	// The key of releases, which signed both, may sign what they pin.
	report, err := Verify(t.Context(), dir, update.Options{Root: root, State: filepath.Join(t.TempDir(), "state"), Now: at(start)}, nil)
	if err != nil || len(report.Releases) != 2 || report.Targets != 10 {
		t.Errorf("verify: %+v, %v", report, err)
	}
	if err := s.FetchPin(t.Context(), update.Pin{Name: "x", Path: "packs/x", Size: 1}, nil, io.Discard, nil); err == nil {
		t.Error("a pin that is not there was fetched")
	}
}

// What is there of a file and cannot be read counts as damaged: stores fetch all of it then.
func TestFetchPinAfterUnreadableRest(t *testing.T) {
	dir, _, root := publish(t)
	s := client(t, dir, root)
	err := s.FetchPin(t.Context(), update.Pin{Name: "x", Size: 10}, iotest.ErrReader(unix.EIO), io.Discard, nil)
	if !errors.Is(err, update.ErrDamaged) || !errors.Is(err, unix.EIO) {
		t.Errorf("got %v", err)
	}
}
