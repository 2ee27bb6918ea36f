package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	erofs "github.com/erofs/go-erofs"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
	"oscine.dev/oscine/internal/image/layout"
	"oscine.dev/oscine/internal/release"
)

// addModules unpacks modules onto the root, with the lists by which PID 1
// loads them.
func (c *content) addModules(ctx context.Context, k *kernel) error {
	from, err := c.deb(k.tree, k.tree.Packages[0])
	if err != nil {
		return err
	}
	var all []*Module
	for _, group := range []struct {
		modules []*Module
		why     string
	}{
		{k.initrd, "kernel module that stage 1 loads"},
		{k.ready, "kernel module, loaded when its device is there or the kernel asks for it"},
	} {
		for _, m := range group.modules {
			data, err := readModule(ctx, k.dir+"/"+m.Path)
			if err != nil {
				return err
			}
			c.text(pathOf(k.version, m), group.why, from, data)
		}
		all = append(all, group.modules...)
	}
	base := "usr/lib/modules/" + k.version + "/"
	c.text(strings.TrimPrefix(release.ModulesFile, "/"), "which modules PID 1 loads, in order", "oscine:oscine", loadList(nil))
	c.text(base+"modules.dep", "what each module needs", "oscine:oscine", k.modules.depFile(all))
	c.text(base+"modules.alias", "which module a device needs", "oscine:oscine", aliasFile(all))
	for _, name := range []string{"modules.builtin", "modules.builtin.modinfo"} {
		if err := c.copy(base+name, k.dir+"/"+name, "what the kernel holds itself", from, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// addTrustedRoot puts the metadata of who publishes releases on the root.
func (c *content) addTrustedRoot(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("the trusted root of releases: %w", err)
	}
	if _, err := trustedmetadata.New(text); err != nil {
		return fmt.Errorf("the trusted root of releases: %s is none: %w", file, err)
	}
	c.text(strings.TrimPrefix(release.TrustedRoot, "/"), "whose releases are trusted", "oscine:oscine", text)
	return nil
}

// contentsJSON is the list of everything on the root, the list included.
func (c *content) contentsJSON(version, arch, kernelVersion string) ([]byte, error) {
	c.text(ContentsFile, "what this root holds and why", "oscine:oscine", []byte{})
	contents := Contents{Version: version, Arch: arch, Kernel: kernelVersion, Files: c.list(), Components: c.components(), LicenceTexts: c.texts}
	for i := range contents.Files {
		contents.Files[i].Mode &= fs.ModePerm | fs.ModeType
	}
	return json.MarshalIndent(contents, "", " ")
}

// writeRoot writes the files as an uncompressed erofs, padded to whole blocks,
// followed by its hash tree, to an empty file.
func writeRoot(ctx context.Context, files []File, out *os.File) (release.Verity, error) {
	w := erofs.Create(out, erofs.WithBlockSize(release.BlockSize), erofs.WithBuildTime(Epoch, 0))
	at := time.Unix(Epoch, 0)
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return release.Verity{}, err
		}
		if err := addToRoot(w, f); err != nil {
			return release.Verity{}, fmt.Errorf("root: %s: %w", f.Path, err)
		}
		if err := w.Chtimes("/"+f.Path, at, at); err != nil {
			return release.Verity{}, fmt.Errorf("root: %s: %w", f.Path, err)
		}
	}
	if err := w.Chtimes("/", at, at); err != nil {
		return release.Verity{}, fmt.Errorf("root: %w", err)
	}
	if err := w.Close(); err != nil {
		return release.Verity{}, fmt.Errorf("root: %w", err)
	}
	size, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return release.Verity{}, err
	}
	if size = layout.AlignUp(size, release.BlockSize); out.Truncate(size) != nil {
		return release.Verity{}, fmt.Errorf("root: pad to %d bytes", size)
	}
	// The salt only has to differ between releases, and two builds must agree.
	salt := sha256.Sum256([]byte("oscine root salt"))
	tree, v, err := release.HashTree(io.NewSectionReader(out, 0, size), salt[:])
	if err != nil {
		return v, err
	}
	_, err = out.WriteAt(tree, size)
	return v, err
}

func addToRoot(w *erofs.Writer, f File) error {
	name := "/" + f.Path
	switch {
	case f.Mode.IsDir():
		return w.Mkdir(name, f.Mode)
	case f.Mode&fs.ModeSymlink != 0:
		return w.Symlink(f.Link, name)
	}
	data, err := f.read()
	if err != nil {
		return err
	}
	file, err := w.Create(name)
	if err != nil {
		return err
	}
	if _, err := io.Copy(file, bytes.NewReader(data)); err != nil {
		return err
	}
	if err := file.Chmod(f.Mode); err != nil {
		return err
	}
	return file.Close()
}
