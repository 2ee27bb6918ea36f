package pack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	_ "embed" // of lock.json
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/durable"
)

//go:embed lock.json
var lockText []byte

// lock pins what packs are built from beside Debian packages.
type lock struct {
	NPM npmPackage `json:"npm"`
}

// npmPackage is a package of the npm registry at one version.
type npmPackage struct {
	Name      string             `json:"name"`
	Version   string             `json:"version"`
	Integrity string             `json:"integrity"` // of the archive, as package-lock.json writes it
	Files     map[string]npmFile `json:"files"`     // the one file that is used, by architecture
}

type npmFile struct {
	Path   string `json:"path"`   // in the archive
	SHA256 string `json:"sha256"` // of the file
}

func readLock() (*lock, error) {
	l := new(lock)
	if err := json.Unmarshal(lockText, l); err != nil {
		return nil, fmt.Errorf("read the lock of packs: %w", err)
	}
	return l, nil
}

// Runtime returns the path of the pinned ONNX Runtime library for an
// architecture from the cache, fetching the npm package, which holds it, when
// fetch is true and the cache lacks it. Without fetch it then returns an error
// wrapping os.ErrNotExist.
func Runtime(ctx context.Context, arch string, fetch bool, log io.Writer) (string, error) {
	l, err := readLock()
	if err != nil {
		return "", err
	}
	file, ok := l.NPM.Files[arch]
	if !ok {
		return "", fmt.Errorf("no ONNX Runtime is pinned for the architecture %q: use amd64 or arm64", arch)
	}
	cache, err := debian.CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "npm", l.NPM.Name+"-"+l.NPM.Version)
	path := filepath.Join(dir, arch, filepath.Base(file.Path))
	sum, err := fileDigest(path)
	switch {
	case err == nil && sum == file.SHA256:
		return path, nil
	case !fetch && err != nil:
		return "", fmt.Errorf("ONNX Runtime is not in the cache (make packs fetches it): %w", err)
	case !fetch:
		return "", fmt.Errorf("%s has SHA-256 %s, not the pinned %s: delete it", path, sum, file.SHA256)
	}
	if err := l.NPM.fetch(ctx, dir, log); err != nil {
		return "", fmt.Errorf("fetch ONNX Runtime (npm package %s %s): %w", l.NPM.Name, l.NPM.Version, err)
	}
	return path, nil
}

// fetch lets npm download the archive, checks it against the lock and keeps
// the files for all architectures.
func (p *npmPackage) fetch(ctx context.Context, dir string, log io.Writer) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return errors.New("the npm command is needed: install it (on Debian: apt-get install npm)")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	fmt.Fprintf(log, "fetch %s %s with npm, 114 MB\n", p.Name, p.Version)
	cmd := exec.CommandContext(ctx, npm, "pack", "--silent", "--pack-destination", tmp, p.Name+"@"+p.Version)
	cmd.Dir = tmp
	var words bytes.Buffer
	cmd.Stderr = &words
	if _, err := cmd.Output(); err != nil {
		return fmt.Errorf("npm pack: %w: %s: check the network and the registry that npm is configured with", err, bytes.TrimSpace(words.Bytes()))
	}
	archives, err := filepath.Glob(filepath.Join(tmp, "*.tgz"))
	if err != nil || len(archives) != 1 {
		return fmt.Errorf("npm pack left %d archives instead of one", len(archives))
	}
	return p.unpack(archives[0], dir)
}

func (p *npmPackage) unpack(archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	whole := sha512.New()
	if _, err := io.Copy(whole, f); err != nil {
		return err
	}
	if got := "sha512-" + base64.StdEncoding.EncodeToString(whole.Sum(nil)); got != p.Integrity {
		return fmt.Errorf("the archive's integrity is %s, not the pinned %s: the registry gave something else", got, p.Integrity)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	plain, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	found := 0
	for entries := tar.NewReader(plain); ; {
		head, err := entries.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		for arch, file := range p.Files {
			if head.Name != file.Path {
				continue
			}
			if err := keep(entries, filepath.Join(dir, arch, filepath.Base(file.Path)), file.SHA256); err != nil {
				return err
			}
			found++
		}
	}
	if found != len(p.Files) {
		return fmt.Errorf("the archive holds %d of the %d files that the lock names", found, len(p.Files))
	}
	return nil
}

// keep writes a file whose digest is known; nothing else ever takes its name.
func keep(r io.Reader, path, want string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return durable.Write(path, 0o644, func(f *os.File) error {
		sum := sha256.New()
		if _, err := io.Copy(io.MultiWriter(f, sum), r); err != nil {
			return err
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != want {
			return fmt.Errorf("%s has SHA-256 %s, not the pinned %s", filepath.Base(path), got, want)
		}
		return nil
	})
}

func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
