package repository

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
	"path"
	"path/filepath"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/uki"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/delta"
)

// Release is what [Repository.Create] adds.
type Release struct {
	Parts      *Parts
	MinVersion string   // see [update.Manifest]
	Floor      string   // see [update.Manifest]
	Packs      []string // files
	Models     []string // files
	Deltas     int      // from how many earlier releases deltas are made, the newest first
	Log        io.Writer
}

// Created tells what a release came to.
type Created struct {
	Result
	Manifest *update.Manifest `json:"manifest"`
}

// Create adds a release to the folder. Nothing of it is seen before it is
// signed and complete; an error leaves the folder as it was. Errors: [ErrVersion]
// for one that is not newer than all others of its architecture and flavour,
// [ErrBusy].
func (r *Repository) Create(ctx context.Context, rel Release) (*Created, error) {
	unlock, err := r.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	s, err := r.load()
	if err != nil {
		return nil, err
	}
	c := &creation{Repository: r, Release: rel, state: s, role: metadata.TARGETS}
	if s.targets[Releases] != nil {
		c.role = Releases
	}
	created, err := c.run(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create the release: %w", err), c.undo())
	}
	return created, nil
}

// creation is one run of [Repository.Create].
type creation struct {
	*Repository
	Release
	state *state
	role  string   // that signs the release
	added []string // files
	dirs  []string // that were made, the outer first
}

func (c *creation) say(format string, args ...any) {
	if c.Log != nil {
		fmt.Fprintf(c.Log, format+"\n", args...)
	}
}

// folder is the part of a target's path that a release has for itself.
func folder(version, arch, flavour string) string { return path.Join(version, arch+"-"+flavour) }

func (c *creation) run(ctx context.Context) (*Created, error) {
	p := c.Parts
	earlier, err := c.earlier()
	if err != nil {
		return nil, err
	}
	for _, m := range earlier {
		if release.CompareVersions(p.Version, m.Version) <= 0 {
			return nil, fmt.Errorf("%w: %s for %s-%s is there and this one is %s", ErrVersion, m.Version, p.Arch, p.Flavour, p.Version)
		}
	}
	m := &update.Manifest{
		Format: update.ManifestFormat, Version: p.Version, Arch: p.Arch, Flavour: p.Flavour, Kernel: p.Kernel,
		Built: c.options.Now().UTC().Truncate(time.Second), MinVersion: c.MinVersion, Floor: c.Floor, RootHash: fmt.Sprintf("%x", p.verity.RootHash),
	}
	pcr, err := uki.PCR11(p.image)
	if err != nil {
		return nil, err
	}
	m.PCR11 = fmt.Sprintf("%x", pcr)
	if err := c.transfers(ctx, m, earlier[:min(len(earlier), c.Deltas)]); err != nil {
		return nil, err
	}
	if m.Packs, err = c.pins(ctx, path.Join(folder(m.Version, m.Arch, m.Flavour), "packs"), c.Packs); err != nil {
		return nil, err
	}
	if m.Models, err = c.pins(ctx, path.Join(folder(m.Version, m.Arch, m.Flavour), "models"), c.Models); err != nil {
		return nil, err
	}
	if err := m.Check(); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return nil, err
	}
	err = c.add(path.Join(folder(m.Version, m.Arch, m.Flavour), update.ManifestName), func(f *os.File) error {
		_, err := f.Write(append(text, '\n'))
		return err
	})
	if err != nil {
		return nil, err
	}
	c.touchTargets(c.state, c.role)
	result, err := c.finish(c.state)
	if err != nil {
		return nil, err
	}
	return &Created{*result, m}, nil
}

// transfers makes the full transfers of image and root, and deltas from earlier
// releases where they are smaller.
func (c *creation) transfers(ctx context.Context, m *update.Manifest, earlier []*update.Manifest) error {
	img, root, err := c.Parts.contents()
	if err != nil {
		return err
	}
	base := folder(m.Version, m.Arch, m.Flavour)
	for _, x := range []struct {
		name    string
		content *delta.Content
		to      *update.Content
		of      func(*update.Manifest) (*update.Content, string)
	}{
		{"image", img, &m.Image, imageOf}, {"root", root, &m.Root, rootOf},
	} {
		x.to.Size = x.content.Size
		if x.to.SHA256, err = digestOf(x.content.Data, x.content.Size); err != nil {
			return err
		}
		c.say("compress the %s, %d MiB", x.name, x.content.Size>>20)
		if x.to.Full, err = c.transfer(ctx, path.Join(base, x.name), x.content, nil, 0); err != nil {
			return err
		}
		for _, old := range earlier {
			content, id := x.of(old)
			if id == "" || content.SHA256 == x.to.SHA256 {
				continue
			}
			c.say("make the delta of the %s from %s", x.name, old.Version)
			t, err := c.deltaFrom(ctx, path.Join(base, x.name+".from-"+old.Version), x.content, content, x.name, old, x.to.Full.Size)
			if err != nil {
				return fmt.Errorf("delta from %s: %w", old.Version, err)
			}
			if t.Size < x.to.Full.Size {
				t.Base = id
				x.to.Deltas = append(x.to.Deltas, t)
			}
		}
	}
	return nil
}

func imageOf(m *update.Manifest) (*update.Content, string) { return &m.Image, m.Image.SHA256.String() }
func rootOf(m *update.Manifest) (*update.Content, string)  { return &m.Root, m.RootHash }

// transfer makes one transfer file. One of most bytes or more is made and
// thrown away, when most is not 0.
func (c *creation) transfer(ctx context.Context, name string, content, old *delta.Content, most int64) (update.Transfer, error) {
	work, err := os.MkdirTemp(c.dir, ".work-")
	if err != nil {
		return update.Transfer{}, err
	}
	defer os.RemoveAll(work)
	f, err := os.Create(filepath.Join(work, "transfer"))
	if err != nil {
		return update.Transfer{}, err
	}
	defer f.Close()
	t, err := delta.Make(ctx, content, old, f)
	if err != nil || most != 0 && t.Size >= most {
		return t, err
	}
	t.Path = name
	return t, c.keep(name, f, t.Size, t.SHA256)
}

// deltaFrom makes a delta from an earlier release, whose content is taken from
// its full transfer.
func (c *creation) deltaFrom(ctx context.Context, name string, content *delta.Content, old *update.Content, kind string, m *update.Manifest, most int64) (update.Transfer, error) {
	work, err := os.MkdirTemp(c.dir, ".work-")
	if err != nil {
		return update.Transfer{}, err
	}
	defer os.RemoveAll(work)
	f, err := os.Create(filepath.Join(work, "old"))
	if err != nil {
		return update.Transfer{}, err
	}
	defer f.Close()
	err = delta.Apply(ctx, delta.Job{Content: old, Transfer: old.Full, Slot: f, Open: func(_ context.Context, at int64) (io.ReadCloser, error) {
		full, err := os.Open(c.target(prefixed(old.Full.Path, old.Full.SHA256[:])))
		if err != nil {
			return nil, err
		}
		_, err = full.Seek(at, io.SeekStart)
		return full, err
	}})
	if err != nil {
		return update.Transfer{}, err
	}
	var from *delta.Content
	if kind == "root" {
		from, err = c.oldRoot(f, old, m)
	} else {
		var data []byte
		if data, err = io.ReadAll(io.NewSectionReader(f, 0, old.Size)); err == nil {
			from, err = delta.Image(data)
		}
	}
	if err != nil {
		return update.Transfer{}, err
	}
	return c.transfer(ctx, name, content, from, most)
}

// oldRoot describes an earlier root. How many blocks its hash tree stands for
// follows from its size.
func (c *creation) oldRoot(f *os.File, old *update.Content, m *update.Manifest) (*delta.Content, error) {
	blocks, err := release.DataBlocks(old.Size)
	if err != nil {
		return nil, fmt.Errorf("the root of %s: %w", m.Version, err)
	}
	return delta.Root(f, old.Size, release.Verity{Blocks: blocks})
}

// pins adds files that belong to a release, in its own folder: the next one may
// bring another file of the same name.
func (c *creation) pins(ctx context.Context, dir string, names []string) ([]update.Pin, error) {
	var pins []update.Pin
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		from, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		info, err := from.Stat()
		if err != nil || !info.Mode().IsRegular() {
			return nil, errors.Join(err, from.Close(), fmt.Errorf("%s is no file", name))
		}
		sum, err := digestOf(from, info.Size())
		pin := update.Pin{Name: filepath.Base(name), Path: path.Join(dir, filepath.Base(name)), Size: info.Size(), SHA256: sum}
		if err == nil {
			pin.Verity, err = verityOf(from, info.Size())
		}
		if err == nil {
			err = c.keep(pin.Path, from, pin.Size, pin.SHA256)
		}
		if err = errors.Join(err, from.Close()); err != nil {
			return nil, err
		}
		pins = append(pins, pin)
	}
	return pins, nil
}

// verityOf names the hash tree that a file ends with, as packs do, "" where it has none.
func verityOf(f io.ReaderAt, size int64) (string, error) {
	blocks, err := release.DataBlocks(size)
	if err != nil {
		return "", nil // no file of whole blocks with a tree has this size
	}
	data := int64(blocks) * release.BlockSize
	tree, v, err := release.HashTree(io.NewSectionReader(f, 0, data), nil)
	if err != nil {
		return "", err
	}
	there := make([]byte, len(tree))
	if _, err := f.ReadAt(there, data); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if !bytes.Equal(tree, there) {
		return "", nil
	}
	return v.String(), nil
}

// add writes a target.
func (c *creation) add(name string, fill func(*os.File) error) error {
	work, err := os.MkdirTemp(c.dir, ".work-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	f, err := os.Create(filepath.Join(work, "file"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := fill(f); err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	sum, err := digestOf(f, size)
	if err != nil {
		return err
	}
	return c.keep(name, f, size, sum)
}

// keep copies a file under its digest and name to the targets, and lists it in
// the metadata.
func (c *creation) keep(name string, from io.ReaderAt, size int64, sum update.Digest) error {
	file := c.target(prefixed(name, sum[:]))
	if err := c.mkdir(filepath.Dir(file)); err != nil {
		return err
	}
	if _, err := os.Stat(file); err != nil {
		c.added = append(c.added, file)
	}
	err := durable.Write(file, 0o644, func(f *os.File) error {
		whole := sha256.New()
		if _, err := io.Copy(io.MultiWriter(f, whole), io.NewSectionReader(from, 0, size)); err != nil {
			return err
		}
		if update.Digest(whole.Sum(nil)) != sum {
			return fmt.Errorf("%s changed while it was read", name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.state.targets[c.role].Signed.Targets[name] = &metadata.TargetFiles{Length: size, Hashes: metadata.Hashes{"sha256": sum[:]}, Path: name}
	return nil
}

// mkdir makes a folder and remembers what of it was not there.
func (c *creation) mkdir(dir string) error {
	var missing []string
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); err == nil || d == c.dir {
			break
		}
		missing = append([]string{d}, missing...)
	}
	c.dirs = append(c.dirs, missing...)
	return durable.MkdirAll(dir, 0o755)
}

// undo removes what was added.
func (c *creation) undo() error {
	var errs []error
	for _, file := range c.added {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	for i := len(c.dirs) - 1; i >= 0; i-- {
		if err := os.Remove(c.dirs[i]); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// prefixed is the file name of a target with consistent snapshots (TUF
// specification, section 6.2).
func prefixed(name string, sum []byte) string {
	return path.Join(path.Dir(name), hex.EncodeToString(sum)+"."+path.Base(name))
}
