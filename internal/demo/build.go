package demo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"oscine.dev/oscine/internal/image"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/printable"
)

// buildImage builds the image when it is missing or older than the source.
func (r *run) buildImage(ctx context.Context) (string, error) {
	r.image = filepath.Join(r.Dir, "oscine-"+r.Arch+".img")
	how := "built"
	fresh, err := newerThanSource(r.Source, r.image, r.image+".zst")
	if err != nil {
		return "", err
	}
	if fresh {
		how = "there already"
	} else if _, err := image.Build(ctx, image.Options{Arch: r.Arch, Out: r.image, Source: r.Source, Compress: true, Log: &r.log}); err != nil {
		return "", err
	}
	info, err := os.Stat(r.image)
	if err != nil {
		return "", err
	}
	compressed, err := os.Stat(r.image + ".zst")
	if err != nil {
		return "", err
	}
	r.report.Image = ImageReport{File: r.image, CompressedBytes: compressed.Size(), DiskBytes: info.Size()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		r.report.Image.WrittenBytes = st.Blocks * 512
	}
	return fmt.Sprintf("%s %s, %s compressed", r.image, how, printable.Bytes(compressed.Size())), nil
}

// buildPack builds the pack; its cache makes that quick.
func (r *run) buildPack(ctx context.Context) (string, error) {
	p, err := pack.Build(ctx, pack.BuildOptions{Arch: r.Arch, Out: filepath.Join(r.Dir, "packs"), Source: r.Source, Log: &r.log})
	if err != nil {
		return "", err
	}
	r.pack = p.File
	r.report.Pack = PackReport{Name: p.Name, Version: p.Version, Bytes: p.SizeBytes, Digest: p.Digest}
	return fmt.Sprintf("%s, %s", p.File, printable.Bytes(p.SizeBytes)), nil
}

// newerThanSource reports whether all files are there and newer than
// everything that an image is built from.
func newerThanSource(source string, files ...string) (bool, error) {
	oldest := time.Now()
	for _, file := range files {
		info, err := os.Stat(file)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if info.ModTime().Before(oldest) {
			oldest = info.ModTime()
		}
	}
	changed := errors.New("changed")
	for _, part := range []string{"cmd", "internal", "go.mod", "go.sum"} {
		err := filepath.WalkDir(filepath.Join(source, part), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() || strings.HasSuffix(path, "_test.go") {
				return err
			}
			info, err := entry.Info()
			if err == nil && info.ModTime().After(oldest) {
				return changed
			}
			return err
		})
		if errors.Is(err, changed) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("look at Oscine's source: %w: run this in its checkout", err)
		}
	}
	return true, nil
}
