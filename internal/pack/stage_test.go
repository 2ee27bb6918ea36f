package pack

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/pki"
	"oscine.dev/oscine/internal/update"
)

// sending is a fetch of a file that goes on where an earlier one ended.
func sending(raw []byte) func(io.Reader, io.Writer) error {
	return func(have io.Reader, w io.Writer) error {
		there, err := io.ReadAll(have)
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(raw, there) {
			return update.ErrDamaged
		}
		_, err = w.Write(raw[len(there):])
		return err
	}
}

// as opens the store again, as the daemon of another release does.
func (s *Store) as(t *testing.T, release string, pinned ...[]byte) *Store {
	t.Helper()
	again, err := OpenStore(s.dir, s.mounts, s.trust)
	if err != nil {
		t.Fatal(err)
	}
	again.Release = release
	again.Pinned = func(digest string) (string, bool) {
		return "", slices.ContainsFunc(pinned, func(raw []byte) bool { return digestOf(raw) == digest })
	}
	return again
}

// holds checks which bytes are the pack of the name e, and how many files there are.
func (s *Store) holds(t *testing.T, want []byte, files int) {
	t.Helper()
	p, dir, err := s.Mount("e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if mounted(dir) {
			_ = unmount(dir)
		}
	})
	if p.Digest != digestOf(want) {
		t.Errorf("release %s: the pack is %s, want %s", s.Release, p.Digest, digestOf(want))
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil || len(entries) != files {
		t.Errorf("release %s: there are %v, %v; want %d", s.Release, entries, err, files)
	}
}

// A pack that a release pins counts while that release runs, the one before it when
// the machine went back, and one of them is left in the end.
func TestStagedPack(t *testing.T) {
	s, c, _ := openTestStore(t)
	old, next := makePack(t, runtime.GOARCH, "old"), makePack(t, runtime.GOARCH, "next")
	_, err := c.install(s, old)
	skipUnmountable(t, err)
	if err != nil {
		t.Fatal(err)
	}
	s = s.as(t, "1.0", next)
	stage := func() {
		t.Helper()
		if err := s.Stage(t.Context(), "1.1", digestOf(next), sending(next)); err != nil {
			t.Fatal(err)
		}
		if !s.Holds(digestOf(next)) {
			t.Error("staged, and not held")
		}
		s.holds(t, old, 4)
	}
	stage()
	s.as(t, "1.1", next).holds(t, next, 4) // on trial
	back := s.as(t, "1.0", next)
	back.holds(t, old, 4)
	if pinned, err := back.Settle(); err != nil || len(pinned) != 0 {
		t.Errorf("got %v, %v", pinned, err)
	}
	back.holds(t, old, 2)

	stage()
	good := s.as(t, "1.1", next)
	if pinned, err := good.Settle(); err != nil || !slices.Equal(pinned, []string{digestOf(next)}) {
		t.Errorf("got %v, %v", pinned, err)
	}
	good.holds(t, next, 2)
	good.as(t, "1.2", next).holds(t, next, 2) // which pins none of that name
	if err := good.as(t, "1.1", next).Stage(t.Context(), "1.2", digestOf(next), nil); err != nil {
		t.Errorf("one that is installed: %v", err)
	}
	if _, _, err := good.as(t, "1.1").Mount("e"); !errors.Is(err, ErrUntrusted) {
		t.Errorf("one that no release pins: got %v", err)
	}
	if _, err := c.install(good, old); err != nil {
		t.Fatal(err)
	}
	good.holds(t, old, 2)
}

// A pack that was staged for a release which was cancelled counts for the next one
// that pins it.
func TestStagedForAnotherRelease(t *testing.T) {
	s, c, _ := openTestStore(t)
	old, next := makePack(t, runtime.GOARCH, "old"), makePack(t, runtime.GOARCH, "next")
	_, err := c.install(s, old)
	skipUnmountable(t, err)
	if err != nil {
		t.Fatal(err)
	}
	s = s.as(t, "1.0", next)
	for _, release := range []string{"1.1", "1.2"} {
		if err := s.Stage(t.Context(), release, digestOf(next), sending(next)); err != nil {
			t.Fatal(err)
		}
	}
	s = s.as(t, "1.2", next)
	if _, err := s.Settle(); err != nil {
		t.Error(err)
	}
	s.holds(t, next, 2)
}

// An admin's pack is the one that counts, also while the release is on trial.
func TestStagedPackIsReplaced(t *testing.T) {
	s, c, _ := openTestStore(t)
	old, next := makePack(t, runtime.GOARCH, "old"), makePack(t, runtime.GOARCH, "next")
	s = s.as(t, "1.0", next)
	err := s.Stage(t.Context(), "1.1", digestOf(next), sending(next))
	skipUnmountable(t, err)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("before the release runs: got %v, %v", list, err)
	}
	s = s.as(t, "1.1", next)
	if list, err := s.List(); err != nil || len(list) != 1 || list[0].Release != "1.1" {
		t.Errorf("got %v, %v", list, err)
	}
	if _, err := c.install(s, old); err != nil {
		t.Fatal(err)
	}
	s.holds(t, old, 2)
	if err := s.Remove("e"); err != nil {
		t.Error(err)
	}
	if err := s.Stage(t.Context(), "1.1", digestOf(next), sending(next)); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove("e"); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(s.dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A download that was cut goes on, a damaged beginning is fetched again, and what is
// no pack, or not the pinned one, leaves nothing.
func TestStageResumes(t *testing.T) {
	s, _, _ := openTestStore(t)
	raw := makePack(t, runtime.GOARCH, "program")
	junk, foreign := bytes.Repeat([]byte("junk"), 4096), makePack(t, otherArch(), "program")
	s = s.as(t, "1.0", raw, junk, foreign)
	cut := func(_ io.Reader, w io.Writer) error {
		_, err := w.Write(raw[:1000])
		return errors.Join(err, update.ErrUnreachable)
	}
	if err := s.Stage(t.Context(), "1.1", digestOf(raw), cut); !errors.Is(err, update.ErrUnreachable) {
		t.Errorf("cut: got %v", err)
	}
	if got := s.Left(digestOf(raw)); got != 1000 {
		t.Errorf("it left %d bytes", got)
	}
	had := -1
	err := s.Stage(t.Context(), "1.1", digestOf(raw), func(have io.Reader, w io.Writer) error {
		there, err := io.ReadAll(have)
		had = len(there)
		return errors.Join(err, sending(raw)(bytes.NewReader(there), w))
	})
	skipUnmountable(t, err)
	if err != nil || had != 1000 {
		t.Errorf("resumed with %d bytes: %v", had, err)
	}
	s.as(t, "1.1", raw).holds(t, raw, 2)
	if _, err := s.Settle(); err != nil {
		t.Error(err)
	}

	write(t, filepath.Join(s.dir, partial+strings.TrimPrefix(digestOf(raw), "sha256:")), "not the beginning of it")
	if err := s.Stage(t.Context(), "1.1", digestOf(raw), sending(raw)); err != nil {
		t.Errorf("a damaged beginning: %v", err)
	}
	if _, err := s.Settle(); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		raw, sent []byte
		want      error
	}{
		"no pack":        {junk, junk, ErrNotPack},
		"another's arch": {foreign, foreign, ErrNotPack},
		"another file":   {raw, junk, ErrDamaged},
		"not pinned":     {[]byte("x"), nil, ErrUntrusted},
	} {
		if err := s.Stage(t.Context(), "1.1", digestOf(c.raw), sending(c.sent)); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if left, err := os.ReadDir(s.dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func otherArch() string {
	if runtime.GOARCH == "amd64" {
		return "arm64"
	}
	return "amd64"
}

// A stop between any two steps of staging and settling leaves one pack of the name,
// and nothing that no record names once a store was opened again.
func TestStopWhileSettling(t *testing.T) {
	s, c, _ := openTestStore(t)
	old, next := makePack(t, runtime.GOARCH, "old"), makePack(t, runtime.GOARCH, "next")
	_, err := c.install(s, old)
	skipUnmountable(t, err)
	if err != nil {
		t.Fatal(err)
	}
	s = s.as(t, "1.0", next)
	write(t, s.file(strings.TrimPrefix(digestOf(next), "sha256:")), string(next)) // it has its name, and no record
	s = s.as(t, "1.0", next)
	s.holds(t, old, 2)
	if err := s.Stage(t.Context(), "1.1", digestOf(next), sending(next)); err != nil {
		t.Fatal(err)
	}
	// Its record took the place of the one before, whose file is there still.
	if err := os.Rename(s.stagedFile("e"), s.recordFile("e")); err != nil {
		t.Fatal(err)
	}
	s = s.as(t, "1.1", next)
	if _, err := s.Settle(); err != nil {
		t.Error(err)
	}
	s.holds(t, next, 2)
}

// A release vouches for the root hash of a pack too, where it names it.
func TestReleasePinsRootHash(t *testing.T) {
	s, _, _ := openTestStore(t)
	raw := makePack(t, runtime.GOARCH, "program")
	tree, err := readVerity(bytes.NewReader(raw), int64(len(raw)))
	if err != nil || tree == nil {
		t.Fatal(tree, err)
	}
	for named, want := range map[string]bool{tree.String(): true, "": false, strings.Repeat("ab", 32) + ",-,1": false} {
		s.Pinned = func(string) (string, bool) { return named, true }
		if root, err := s.authentic(digestOf(raw), tree.String(), pki.Signature{}, "1.1"); err != nil || root != want {
			t.Errorf("named as %q: %v, %v, want %v", named, root, err, want)
		}
	}
}
