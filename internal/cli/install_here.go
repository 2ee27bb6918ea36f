package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/image"
	"oscine.dev/oscine/internal/install"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/source"
)

// hereTarget is this machine, whose disk this program writes.
type hereTarget struct {
	o       *installOptions
	machine []byte
	source  *install.Source
	done    []func() error
}

func openHere(ctx context.Context, env *Env, o *installOptions, machine []byte) (*hereTarget, error) {
	t := &hereTarget{o: o, machine: machine}
	if o.list {
		return t, nil
	}
	if os.Getuid() != 0 {
		return nil, errors.New("only root may write a disk: run it with sudo")
	}
	fmt.Fprintln(env.Err, "check what is to be installed")
	var err error
	if o.image != "" {
		err = t.openImage(o.image)
	} else {
		err = t.openRelease(ctx, env)
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// openImage takes what a disk image would start.
func (t *hereTarget) openImage(name string) error {
	i, err := image.Open(name)
	if err != nil {
		return err
	}
	t.done = append(t.done, i.Close)
	_, kernel, err := i.KernelImage()
	if err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	t.done = append(t.done, f.Close)
	var reasons error
	for _, slot := range release.Slots() {
		p, _ := i.Partition(slot)
		if t.source, err = install.Open(kernel, io.NewSectionReader(f, p.Start, p.Size)); err == nil {
			return nil
		}
		reasons = errors.Join(reasons, fmt.Errorf("%s: %s: %w", name, slot, err))
	}
	return reasons
}

// openRelease fetches a release into a temporary folder, checked as a node does.
func (t *hereTarget) openRelease(ctx context.Context, env *Env) error {
	root, err := readBounded(env, t.o.root, 1<<20, "so not root metadata")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "oscine-install-")
	if err != nil {
		return err
	}
	t.done = append(t.done, func() error { return os.RemoveAll(dir) })
	from, err := source.Open(t.o.release, update.Options{Root: root, State: filepath.Join(dir, "state")})
	if err != nil {
		return err
	}
	defer from.Close()
	m, err := t.choose(ctx, from)
	if err != nil {
		return err
	}
	kernel, err := t.fetch(ctx, env, from, &m.Image, filepath.Join(dir, "kernel"))
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.NewSectionReader(kernel, 0, m.Image.Size))
	if err != nil {
		return err
	}
	files, err := t.fetch(ctx, env, from, &m.Root, filepath.Join(dir, "root"))
	if err != nil {
		return err
	}
	if t.source, err = install.Open(text, files); err != nil {
		return fmt.Errorf("%s: %s: %w", t.o.release, m.Version, err)
	}
	return nil
}

// choose finds the release that is asked for, for this machine's architecture.
func (t *hereTarget) choose(ctx context.Context, from update.Source) (*update.Manifest, error) {
	var found []*update.Manifest
	var flavours []string
	for _, flavour := range []string{image.FlavourCloud, image.FlavourMetal, image.FlavourRT} {
		if t.o.kernel != "" && t.o.kernel != flavour {
			continue
		}
		all, err := from.Releases(ctx, runtime.GOARCH, flavour)
		if err != nil {
			return nil, err
		}
		for _, m := range all { // the newest first
			if t.o.version == "" || m.Version == t.o.version {
				found, flavours = append(found, m), append(flavours, flavour)
				break
			}
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%s has no such release for %s: see oscine release list", t.o.release, runtime.GOARCH)
	case 1:
		return found[0], nil
	}
	return nil, usageError{fmt.Errorf("%s has releases with the kernels %s: choose one with --kernel", t.o.release, strings.Join(flavours, ", "))}
}

func (t *hereTarget) fetch(ctx context.Context, env *Env, from update.Source, c *update.Content, name string) (*os.File, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	t.done = append(t.done, f.Close)
	p := newProgress(env, "fetch "+filepath.Base(name), c.Size)
	defer p.done()
	err = from.Fetch(ctx, c, nil, f, func(now update.Progress) { p.at(now.Done) })
	return f, err
}

func (t *hereTarget) close() {
	for i := len(t.done) - 1; i >= 0; i-- {
		_ = t.done[i]() // files that were read, and a temporary folder
	}
}

func (t *hereTarget) disks(context.Context) ([]*pb.Disk, error) {
	disks, err := install.Machine{}.Disks()
	if err != nil {
		return nil, err
	}
	var all []*pb.Disk
	for _, d := range disks {
		all = append(all, d.Message())
	}
	return all, nil
}

func (t *hereTarget) find(_ []*pb.Disk, name string) (*pb.Disk, error) {
	d, err := install.Machine{}.Find(name)
	if err != nil {
		return nil, err
	}
	if err := (install.Machine{}).Check(d, t.source, t.options(nil)); err != nil {
		return nil, err
	}
	return d.Message(), nil
}

func (t *hereTarget) options(report func(install.Progress)) install.Options {
	return install.Options{Machine: t.machine, KeepData: t.o.keepData, Force: t.o.forceGroup, Report: report}
}

func (t *hereTarget) install(ctx context.Context, d *pb.Disk, report func(*pb.InstallResponse)) (string, error) {
	disk, err := install.Machine{}.Find("/dev/" + d.Name)
	if err != nil {
		return "", err
	}
	o := t.options(func(p install.Progress) {
		report(&pb.InstallResponse{Step: p.Step, DoneBytes: p.Done, TotalBytes: p.Total})
	})
	o.Path, o.Size = d.Path, d.SizeBytes
	err = install.Machine{}.Install(ctx, disk, t.source, o)
	return t.source.Version, err
}
