package debian

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"oscine.dev/oscine/internal/durable"
	"path/filepath"
	"strings"
	"time"
)

// Source gives packages from the cache, and from a mirror what the cache
// lacks. The zero value is not usable; see [Open].
type Source struct {
	cache  string // …/oscine/debian
	log    io.Writer
	lock   *Lock
	mirror string // found when first needed
}

// Open returns a source for the embedded lock. Progress lines go to log, which
// may be nil.
func Open(log io.Writer) (*Source, error) {
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	lock, err := Embedded()
	if err != nil {
		return nil, err
	}
	return newSource(filepath.Join(cache, "debian"), lock, log), nil
}

func newSource(cache string, lock *Lock, log io.Writer) *Source {
	if log == nil {
		log = io.Discard
	}
	return &Source{cache: cache, log: log, lock: lock}
}

func (s *Source) debs() string { return filepath.Join(s.cache, "debs") }

// file is where a fetched package lies; only complete and verified files ever
// carry such a name.
func (s *Source) file(p Package) string { return filepath.Join(s.debs(), p.SHA256+".deb") }

// Fetch makes sure that every package is in the cache and returns their files
// in order. Each is verified by its SHA-256 before it takes its place there.
func (s *Source) Fetch(ctx context.Context, packages ...Package) ([]string, error) {
	if err := os.MkdirAll(s.debs(), 0o755); err != nil {
		return nil, fmt.Errorf("make the package cache: %w", err)
	}
	release, err := lockFile(ctx, filepath.Join(s.cache, "fetch.lock"))
	if err != nil {
		return nil, err
	}
	defer release()
	files := make([]string, len(packages))
	var missing []Package
	var bytes int64
	for i, p := range packages {
		files[i] = s.file(p)
		if info, err := os.Stat(files[i]); err != nil || info.Size() != p.Size {
			missing = append(missing, p)
			bytes += p.Size
		}
	}
	if len(missing) == 0 {
		return files, nil
	}
	if s.mirror == "" {
		if s.mirror, err = Mirror(ctx); err != nil {
			return nil, err
		}
	}
	what := fmt.Sprintf("%d packages", len(missing))
	if len(missing) == 1 {
		what = missing[0].Name + " " + missing[0].Version
	}
	fmt.Fprintf(s.log, "fetch %s, %.1f MB, from %s\n", what, float64(bytes)/1e6, s.mirror)
	return files, s.download(ctx, missing)
}

// download fetches into a fresh folder beside the packages and moves over only
// what has the right digest, so an interrupted run leaves nothing behind.
func (s *Source) download(ctx context.Context, missing []Package) error {
	tmp, err := os.MkdirTemp(s.cache, "fetch-")
	if err != nil {
		return fmt.Errorf("make the package cache: %w", err)
	}
	defer os.RemoveAll(tmp)
	get := s.overHTTP
	if _, err := os.Stat(aptHelper); err == nil {
		get = s.overApt
	}
	stop := s.progress(tmp, missing)
	err = get(ctx, missing, tmp)
	stop()
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Fprintf(s.log, "fetch: %v\n", err)
	}
	var lost []Package
	for _, p := range missing {
		tmpFile := filepath.Join(tmp, p.SHA256)
		switch err := verify(tmpFile, p); {
		case errors.Is(err, os.ErrNotExist):
			lost = append(lost, p)
		case err != nil:
			return err
		default:
			if err := durable.Replace(tmpFile, s.file(p)); err != nil {
				return err
			}
		}
	}
	if len(lost) > 0 {
		return &MissingError{Mirror: s.mirror, Packages: lost}
	}
	return nil
}

// progress prints a line every few seconds until it is stopped.
func (s *Source) progress(dir string, packages []Package) (stop func()) {
	var want int64
	for _, p := range packages {
		want += p.Size
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(progressInterval)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				fmt.Fprintf(s.log, "fetched %.1f of %.1f MB\n", float64(sizeOf(dir))/1e6, float64(want)/1e6)
			}
		}
	}()
	return func() { close(done); <-ended }
}

const progressInterval = 5 * time.Second

// sizeOf adds up the files in a folder that others write to.
func sizeOf(dir string) int64 {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	var n int64
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			n += info.Size()
		}
	}
	return n
}

// MissingError tells that a mirror did not give packages that the lock pins:
// it is unreachable, or it has dropped these versions.
type MissingError struct {
	Mirror   string
	Packages []Package
}

// Error names the first package and the next step.
func (e *MissingError) Error() string {
	p := e.Packages[0]
	more := ""
	if n := len(e.Packages) - 1; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("%s did not give %s %s%s: check the network, or name another mirror in OSCINE_DEBIAN_MIRROR",
		e.Mirror, p.Name, p.Version, more)
}

func verify(file string, p Package) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); n != p.Size || got != p.SHA256 {
		return fmt.Errorf("package %s %s from the mirror has SHA-256 %s (%d bytes), not the pinned %s (%d bytes): "+
			"it was altered or cut off; try another mirror by OSCINE_DEBIAN_MIRROR", p.Name, p.Version, got, n, p.SHA256, p.Size)
	}
	return nil
}

// aptHelper is apt's own downloader: it follows the machine's proxies,
// credentials and certificates.
const aptHelper = "/usr/lib/apt/apt-helper"

func (s *Source) overApt(ctx context.Context, missing []Package, dir string) error {
	args := []string{"-q", "-o", "APT::Sandbox::User=root", "download-file"}
	for _, p := range missing {
		args = append(args, s.mirror+"/"+p.Path, filepath.Join(dir, p.SHA256), "SHA256:"+p.SHA256)
	}
	out, err := exec.CommandContext(ctx, aptHelper, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("apt-helper: %w: %s", err, lastLine(out))
	}
	return nil
}

func (s *Source) overHTTP(ctx context.Context, missing []Package, dir string) error {
	var errs []error
	for _, p := range missing {
		if err := s.getOne(ctx, p, filepath.Join(dir, p.SHA256)); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *Source) getOne(ctx context.Context, p Package, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.mirror+"/"+strings.ReplaceAll(p.Path, "+", "%2B"), nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", req.URL, res.Status)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, io.LimitReader(res.Body, p.Size+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", req.URL, err), os.Remove(file))
	}
	return nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if line := strings.TrimSpace(lines[i]); strings.HasPrefix(line, "E:") || i == 0 {
			return line
		}
	}
	return ""
}
