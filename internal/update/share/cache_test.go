package share

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"oscine.dev/oscine/internal/update"
)

// open opens a cache for n bytes.
func open(t *testing.T, dir string, n int64, room func() error) *Cache {
	t.Helper()
	c, err := Open(dir, n, room)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func plenty() error { return nil }

// add adds a file of n bytes, and says whether it had to be fetched.
func add(t *testing.T, c *Cache, seed byte, n int) (update.Digest, bool, error) {
	t.Helper()
	content := bytes.Repeat([]byte{seed}, n)
	fetched := false
	f, err := c.Add(sha256.Sum256(content), int64(n), func(have io.Reader, w io.Writer) error {
		fetched = true
		at, err := io.Copy(io.Discard, have)
		if err == nil {
			_, err = w.Write(content[at:])
		}
		return err
	})
	if err == nil {
		got, err := io.ReadAll(io.NewSectionReader(f, 0, int64(n)+1))
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("file %d: %v, %d bytes", seed, err, len(got))
		}
		f.Close()
	}
	return sha256.Sum256(content), fetched, err
}

func TestCacheEvicts(t *testing.T) {
	c := open(t, t.TempDir(), 100, plenty)
	var digests []update.Digest
	for i := range 3 {
		d, fetched, err := add(t, c, byte(i), 30)
		if err != nil || !fetched {
			t.Fatal(fetched, err)
		}
		digests = append(digests, d)
		old := time.Now().Add(time.Duration(i-10) * time.Hour)
		if err := os.Chtimes(c.file(d), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if _, fetched, err := add(t, c, 0, 30); fetched || err != nil { // and now it was used last
		t.Errorf("what is there was fetched: %t, %v", fetched, err)
	}
	if _, _, err := add(t, c, 3, 30); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false, true} {
		f, err := c.Get(digests[i])
		if (err == nil) != want {
			t.Errorf("file %d is there: %t, want %t", i, err == nil, want)
		}
		if err == nil {
			f.Close()
		}
	}
	if _, fetched, err := add(t, c, 4, 101); !errors.Is(err, update.ErrNotKept) || fetched || c.Bytes() != 90 {
		t.Errorf("one that is too large: %v, fetched %t, %d bytes", err, fetched, c.Bytes())
	}
}

// A disk that is nearly full comes before what peers may want.
func TestCacheGivesWay(t *testing.T) {
	var full error
	c := open(t, t.TempDir(), 100, func() error { return full })
	if _, _, err := add(t, c, 1, 30); err != nil {
		t.Fatal(err)
	}
	c.Trim()
	if c.Bytes() != 30 {
		t.Errorf("there are %d bytes", c.Bytes())
	}
	full = errors.New("full")
	if _, fetched, err := add(t, c, 2, 30); !errors.Is(err, update.ErrNotKept) || fetched || c.Bytes() != 0 {
		t.Errorf("got %v, fetched %t, %d bytes", err, fetched, c.Bytes())
	}
}

// A file goes on where its download was cut, and begins again where what is there is damaged.
func TestCacheResumes(t *testing.T) {
	for name, there := range map[string]string{"cut": "\x01\x01\x01", "damaged": "xyz", "too long": string(bytes.Repeat([]byte{1}, 40))} {
		dir := t.TempDir()
		d := update.Digest(sha256.Sum256(bytes.Repeat([]byte{1}, 30)))
		if err := os.WriteFile(filepath.Join(dir, d.String()+partial), []byte(there), 0o600); err != nil {
			t.Fatal(err)
		}
		c := open(t, dir, 100, plenty)
		begins := 0
		f, err := c.Add(d, 30, func(have io.Reader, w io.Writer) error {
			begins++
			got, err := io.ReadAll(io.LimitReader(have, 30))
			if err != nil {
				return err
			}
			rest := bytes.Repeat([]byte{1}, 30-len(got))
			if _, err := w.Write(rest); err != nil {
				return err
			}
			if sha256.Sum256(append(got, rest...)) != d {
				return update.ErrDamaged
			}
			return nil
		})
		if name == "too long" { // the fetch cannot see it
			if !errors.Is(err, update.ErrDamaged) || c.Bytes() != 0 {
				t.Errorf("%s: got %v, %d bytes", name, err, c.Bytes())
			}
			continue
		}
		if err != nil || name == "damaged" != (begins == 2) {
			t.Errorf("%s: got %v after %d", name, err, begins)
			continue
		}
		f.Close()
		if entries, err := os.ReadDir(dir); err != nil || fmt.Sprint(entries[0].Name(), len(entries)) != d.String()+"1" {
			t.Errorf("%s: there are %v, %v", name, entries, err)
		}
	}
}

// What is not what was signed is not kept, and neither is what was half fetched by one that lied.
func TestCacheKeepsNothingWrong(t *testing.T) {
	c := open(t, t.TempDir(), 100, plenty)
	for _, fetch := range []func(io.Writer) error{
		func(w io.Writer) error { _, err := w.Write([]byte("something else")); return err },
		func(w io.Writer) error {
			_, err := w.Write([]byte("something else"))
			return errors.Join(update.ErrPeer, err)
		},
	} {
		if _, err := c.Add(sha256.Sum256([]byte("x")), 1, func(_ io.Reader, w io.Writer) error { return fetch(w) }); err == nil || c.Bytes() != 0 {
			t.Errorf("got %v, %d bytes", err, c.Bytes())
		}
	}
	// One that was cut stays.
	cut := errors.New("cut")
	_, err := c.Add(sha256.Sum256([]byte("abc")), 3, func(_ io.Reader, w io.Writer) error {
		_, err := w.Write([]byte("ab"))
		return errors.Join(cut, err)
	})
	if !errors.Is(err, cut) || c.Bytes() != 2 {
		t.Errorf("got %v, %d bytes", err, c.Bytes())
	}
	if c.onItsWay(sha256.Sum256([]byte("abc"))) {
		t.Error("a download that has ended counts as under way")
	}
}
