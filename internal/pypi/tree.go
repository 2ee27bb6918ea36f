package pypi

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/durable"
)

// maxFile bounds one file that is taken out of a wheel.
const maxFile = 4 << 30

// Tree returns a folder of the cache that holds files of a wheel: want names
// each by its path in the wheel and says under which path below the folder it
// lies. Where the cache lacks them and fetch is false, the error wraps
// os.ErrNotExist.
func (s *Source) Tree(ctx context.Context, p Package, arch string, want map[string]string, fetch bool) (string, error) {
	f, err := p.For(arch)
	if err != nil {
		return "", err
	}
	id := sha256.New()
	fmt.Fprintln(id, f.SHA256)
	for _, from := range slices.Sorted(maps.Keys(want)) {
		fmt.Fprintf(id, "%q %q\n", from, want[from])
	}
	dir := filepath.Join(s.cache, "trees", p.Name+"-"+p.Version+"-"+hex.EncodeToString(id.Sum(nil))[:16])
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	wheel, err := s.Wheel(ctx, p, arch, fetch)
	if err != nil {
		return "", err
	}
	return dir, durable.MakeTree(dir, func(empty string) error {
		if err := Extract(wheel, empty, want); err != nil {
			return fmt.Errorf("unpack the wheel of %s %s: %w", p.Name, p.Version, err)
		}
		return nil
	})
}

// Extract takes files out of a wheel, each by its path in it, to a path below
// dir. A wheel that lacks one is refused.
func Extract(wheel, dir string, want map[string]string) error {
	z, err := zip.OpenReader(wheel)
	if err != nil {
		return err
	}
	defer z.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	missing := maps.Clone(want)
	for _, f := range z.File {
		to, wanted := missing[f.Name]
		if !wanted {
			continue
		}
		if err := extract(root, f, to); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		delete(missing, f.Name)
	}
	if len(missing) > 0 {
		return fmt.Errorf("it lacks %s", slices.Sorted(maps.Keys(missing)))
	}
	return nil
}

// ExtractAll takes those files out of a wheel that wanted is true for, with their
// paths in it, to a path below dir.
func ExtractAll(wheel, dir string, wanted func(name string) bool) error {
	names, err := files(wheel, wanted)
	if err != nil {
		return err
	}
	want := map[string]string{}
	for _, name := range names {
		want[name] = name
	}
	return Extract(wheel, dir, want)
}

// files lists those of a wheel that wanted is true for.
func files(wheel string, wanted func(name string) bool) ([]string, error) {
	z, err := zip.OpenReader(wheel)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range z.File {
		if !f.FileInfo().IsDir() && wanted(f.Name) {
			names = append(names, f.Name)
		}
	}
	slices.Sort(names)
	return names, z.Close()
}

// maxTexts bounds the texts of a folder, which lie in memory.
const maxTexts = 16 << 20

// Texts joins all files in a folder of a wheel, in the order of their names, each
// below its name.
func Texts(wheel, folder string) (string, error) {
	names, err := files(wheel, func(name string) bool { return strings.HasPrefix(name, folder+"/") })
	if err != nil {
		return "", err
	}
	z, err := zip.OpenReader(wheel)
	if err != nil {
		return "", err
	}
	defer z.Close()
	var all strings.Builder
	for _, name := range names {
		f, err := z.Open(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&all, "%s:\n\n", strings.TrimPrefix(name, folder+"/"))
		_, err = io.Copy(&all, io.LimitReader(f, maxTexts))
		if err = errors.Join(err, f.Close()); err != nil {
			return "", err
		}
		if all.WriteByte('\n'); all.Len() > maxTexts {
			return "", fmt.Errorf("%s holds more than %d bytes", folder, maxTexts)
		}
	}
	return all.String(), nil
}

func extract(root *os.Root, f *zip.File, to string) error {
	if !f.Mode().IsRegular() || f.UncompressedSize64 > maxFile {
		return fmt.Errorf("is no file of at most %d bytes", int64(maxFile))
	}
	if err := root.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := root.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	// The reader checks size and CRC and reads no byte more than it says.
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
