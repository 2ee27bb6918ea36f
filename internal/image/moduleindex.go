package image

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sync/errgroup"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/linux"
)

// maxModule bounds an unpacked module in bytes.
const maxModule = 256 << 20

// IndexModules reads every module below dir (…/usr/lib/modules/VERSION). That
// takes seconds, so the result is kept in cache (a file) and read from there
// the next time.
func IndexModules(ctx context.Context, dir, cache string) (*Modules, error) {
	if text, err := os.ReadFile(cache); err == nil {
		var x Modules
		if json.Unmarshal(text, &x) == nil && x.Version == filepath.Base(dir) {
			return &x, nil
		}
	}
	builtin, err := readBuiltin(dir)
	if err != nil {
		return nil, fmt.Errorf("read the kernel's list of built-in modules: %w", err)
	}
	found := map[string]*Module{}
	for _, m := range builtin {
		found[m.Name] = &m
	}
	if err := readModules(ctx, dir, found); err != nil {
		return nil, err
	}
	x := &Modules{Version: filepath.Base(dir), Loaded: sorted(found)}
	text, err := json.Marshal(x)
	if err != nil {
		return nil, err
	}
	return x, writeAtomic(cache, text)
}

func readModules(ctx context.Context, dir string, found map[string]*Module) error {
	var mu sync.Mutex
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(runtime.NumCPU())
	walk := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.Contains(d.Name(), ".ko") {
			return err
		}
		work.Go(func() error {
			data, err := readModule(ctx, path)
			if err != nil {
				return err
			}
			m, err := modinfoOf(data)
			if err != nil {
				return fmt.Errorf("module %s: %w", path, err)
			}
			m.Name = linux.ModuleName(path)
			if m.Path, err = filepath.Rel(dir, path); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			found[m.Name] = &m
			return nil
		})
		return ctx.Err()
	})
	return errors.Join(work.Wait(), walk)
}

// readModule reads a module file and undoes its compression.
func readModule(ctx context.Context, path string) ([]byte, error) {
	if filepath.Ext(path) == ".xz" {
		if bin, err := exec.LookPath("xz"); err == nil {
			out, err := exec.CommandContext(ctx, bin, "-dc", path).Output()
			if err != nil {
				return nil, fmt.Errorf("module %s: unpack: %w", path, err)
			}
			return out, nil
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	switch filepath.Ext(path) {
	case ".ko":
	case ".xz":
		r, err = xz.NewReader(f)
	case ".zst":
		r, err = zstd.NewReader(f)
	default:
		err = errors.New("its compression is not known")
	}
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", path, err)
	}
	data, err := io.ReadAll(io.LimitReader(r, maxModule))
	if err != nil {
		return nil, fmt.Errorf("module %s: unpack: %w", path, err)
	}
	return data, nil
}

// modinfoOf finds the .modinfo section of an unpacked module.
func modinfoOf(data []byte) (Module, error) {
	file, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return Module{}, err
	}
	section := file.Section(".modinfo")
	if section == nil {
		return Module{}, errors.New("it has no .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return Module{}, err
	}
	return parseModinfo(info), nil
}

// writeAtomic writes a file that is either complete or absent.
func writeAtomic(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(path, data, 0o644)
}
