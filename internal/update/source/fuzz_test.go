package source

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/repository"
	"oscine.dev/oscine/internal/update/repository/repositorytest"
)

// memory is a location that a test made up.
type memory map[string][]byte

func (m memory) close() {}

func (m memory) open(_ context.Context, path string, offset int64) (io.ReadCloser, error) {
	text, ok := m[path]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(text[min(offset, int64(len(text))):])), nil
}

// folderOf reads a release folder of a test into memory.
func folderOf(f *testing.F, dir string) memory {
	files := memory{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files[name], err = os.ReadFile(filepath.Join(dir, name))
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	return files
}

// FuzzMetadata puts foreign bytes in the place of each file of metadata in turn.
// Whatever they are, the client neither crashes nor believes them.
func FuzzMetadata(f *testing.F) {
	dir, _, root := repositorytest.New(f, repository.Options{Now: at(start)})
	whole := folderOf(f, dir)
	names := []string{"metadata/timestamp.json", "metadata/1.snapshot.json", "metadata/1.targets.json", "metadata/1.releases.json", "metadata/2.root.json"}
	for i, name := range names {
		if text, ok := whole[name]; ok {
			f.Add(i, text)
		}
	}
	f.Add(4, root)
	f.Fuzz(func(t *testing.T, which int, text []byte) {
		name := names[uint(which)%uint(len(names))]
		files := memory{}
		for file, text := range whole {
			files[file] = text
		}
		files[name] = text
		trust, err := newTrust(update.Options{Root: root, State: t.TempDir(), Now: at(start)})
		if err != nil {
			t.Fatal(err)
		}
		s := &source{where: "memory", at: files, trust: trust, rate: bounded.NewRate(0)}
		_, err = s.refresh(t.Context())
		if err == nil && !sameMeaning(whole[name], text) {
			t.Errorf("%s was believed: %s", name, text)
		}
	})
}

// sameMeaning allows for spaces and more signatures around a timestamp; whatever
// else is read is pinned by its digest.
func sameMeaning(a, b []byte) bool {
	signed := func(text []byte) string {
		m, err := metadata.Timestamp().FromBytes(text)
		if err != nil {
			return string(text)
		}
		out, err := m.Signed.MarshalJSON()
		if err != nil {
			return string(text)
		}
		return string(out)
	}
	return signed(a) == signed(b)
}
