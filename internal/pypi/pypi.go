package pypi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/pattern"
)

// Package is a project of the index at one version.
type Package struct {
	Name    string          `json:"name"`
	Version string          `json:"version"`
	Wheels  map[string]File `json:"wheels"` // by architecture, amd64 or arm64; or by Any alone
}

// Any is the architecture of a wheel that holds nothing compiled.
const Any = "any"

// File is one wheel.
type File struct {
	Name   string `json:"file"` // as the index has it; its tags say for which machines it is
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"` // bytes
}

var (
	nameRE   = pattern.New(`^[a-z0-9][a-z0-9._-]{0,99}$`)
	versRE   = pattern.New(`^[0-9][0-9a-z.+]{0,99}$`)
	fileRE   = pattern.New(`^[A-Za-z0-9_.+-]{1,200}\.whl$`)
	digestRE = pattern.New(`^[0-9a-f]{64}$`)
)

// ParseLock reads a list of pinned packages: {"packages": […]}.
func ParseLock(text []byte) ([]Package, error) {
	var lock struct {
		Packages []Package `json:"packages"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&lock); err != nil {
		return nil, fmt.Errorf("read the lock of wheels: %w", err)
	}
	for _, p := range lock.Packages {
		if !nameRE.MatchString(p.Name) || !versRE.MatchString(p.Version) || len(p.Wheels) == 0 {
			return nil, fmt.Errorf("read the lock of wheels: %q %q with %d wheels is no pinned package", p.Name, p.Version, len(p.Wheels))
		}
		for arch, f := range p.Wheels {
			if _, err := f.tags(); err != nil || !digestRE.MatchString(f.SHA256) || f.Size <= 0 {
				return nil, fmt.Errorf("read the lock of wheels: %s for %s: %q with SHA-256 %q and %d bytes is no pinned wheel", p.Name, arch, f.Name, f.SHA256, f.Size)
			}
		}
	}
	return lock.Packages, nil
}

// For returns the wheel for an architecture.
func (p *Package) For(arch string) (File, error) {
	for _, a := range []string{arch, Any} {
		if f, ok := p.Wheels[a]; ok {
			return f, nil
		}
	}
	return File{}, fmt.Errorf("no wheel of %s %s is pinned for %s", p.Name, p.Version, arch)
}

// tags are what a wheel's name says of the Python and the machines it is for
// (Python packaging's "binary distribution format").
type tags struct {
	python, abi string
	platforms   []string
}

func (f File) tags() (tags, error) {
	parts := strings.Split(strings.TrimSuffix(f.Name, ".whl"), "-")
	if !fileRE.MatchString(f.Name) || len(parts) < 5 {
		return tags{}, fmt.Errorf("%q is no name of a wheel", f.Name)
	}
	n := len(parts)
	return tags{parts[n-3], parts[n-2], strings.Split(parts[n-1], ".")}, nil
}

// Source gives wheels from the cache, and from the index what the cache lacks.
type Source struct {
	cache string // …/oscine/pypi
	log   io.Writer
}

// Open returns a source. Progress lines go to log, which may be nil.
func Open(log io.Writer) (*Source, error) {
	cache, err := debian.CacheDir()
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = io.Discard
	}
	return &Source{cache: filepath.Join(cache, "pypi"), log: log}, nil
}

// file is where a fetched wheel lies; only complete and verified files ever
// carry such a name.
func (s *Source) file(f File) string { return filepath.Join(s.cache, f.SHA256+".whl") }

// Wheel returns the path of a package's wheel for an architecture. Where the
// cache lacks it and fetch is false, the error wraps os.ErrNotExist.
func (s *Source) Wheel(ctx context.Context, p Package, arch string, fetch bool) (string, error) {
	f, err := p.For(arch)
	if err != nil {
		return "", err
	}
	path := s.file(f)
	info, err := os.Stat(path)
	switch {
	case err == nil && info.Size() == f.Size:
		return path, nil
	case !fetch:
		return "", fmt.Errorf("the wheel of %s %s is not in the cache: %w", p.Name, p.Version, errors.Join(err, os.ErrNotExist))
	}
	if err := s.fetch(ctx, p, f); err != nil {
		return "", fmt.Errorf("fetch %s %s: %w", p.Name, p.Version, err)
	}
	return path, nil
}

// fetch lets pip download a wheel, checks it against the lock and keeps it.
func (s *Source) fetch(ctx context.Context, p Package, f File) error {
	pip, err := findPip()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.cache, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(s.cache, "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	wanted := filepath.Join(tmp, "requirements.txt")
	if err := os.WriteFile(wanted, fmt.Appendf(nil, "%s==%s --hash=sha256:%s\n", p.Name, p.Version, f.SHA256), 0o600); err != nil {
		return err
	}
	args, err := download(f, wanted, tmp)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.log, "fetch %s %s with pip, %.1f MB\n", p.Name, p.Version, float64(f.Size)/1e6)
	cmd := exec.CommandContext(ctx, pip[0], append(pip[1:], args...)...)
	cmd.Dir = tmp
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pip download: %w: %s: check the network and the index that pip is configured with; a wheel that the index has dropped may be put into the cache as %s",
			err, lastLines(out), s.file(f))
	}
	return s.keep(filepath.Join(tmp, f.Name), f)
}

// findPip returns the command of pip.
func findPip() ([]string, error) {
	for _, name := range []string{"pip3", "pip"} {
		if path, err := exec.LookPath(name); err == nil {
			return []string{path}, nil
		}
	}
	return nil, errors.New("the pip3 command is needed: install it (on Debian: apt-get install python3-pip)")
}

// download are pip's arguments for one wheel, which may be for another machine
// and another Python than this one's.
func download(f File, requirements, dir string) ([]string, error) {
	t, err := f.tags()
	if err != nil {
		return nil, err
	}
	args := []string{"download", "--quiet", "--no-input", "--disable-pip-version-check", "--ignore-requires-python",
		"--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", dir, "--requirement", requirements}
	if digits, ok := strings.CutPrefix(t.python, "cp3"); ok {
		args = append(args, "--python-version", "3."+digits, "--implementation", "cp", "--abi", t.abi)
	}
	for _, p := range t.platforms {
		if p != Any {
			args = append(args, "--platform", p)
		}
	}
	return args, nil
}

func lastLines(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}

// keep copies a wheel whose digest is right to its place.
func (s *Source) keep(path string, f File) error {
	in, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("pip left no such wheel: %w", err)
	}
	defer in.Close()
	return durable.Write(s.file(f), 0o644, func(out *os.File) error {
		sum := sha256.New()
		if _, err := io.Copy(io.MultiWriter(out, sum), io.LimitReader(in, f.Size+1)); err != nil {
			return err
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != f.SHA256 {
			return fmt.Errorf("%s has SHA-256 %s, not the pinned %s", f.Name, got, f.SHA256)
		}
		return nil
	})
}
