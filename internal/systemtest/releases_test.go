package systemtest

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/image"
	"oscine.dev/oscine/internal/machine/machinetest"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/uki"
	"oscine.dev/oscine/internal/update/keys"
	"oscine.dev/oscine/internal/update/repository"
)

// The versions of the release folder that a test upgrades to. Each is the tree
// under test, newer than any release, but for what its name says.
const (
	worksVersion    = "999.0"
	panicsVersion   = "999.1" // its kernel finds no init
	isolatedVersion = "999.2" // it has no network
	crashesVersion  = "999.3" // its daemon ends at once
	hangsVersion    = "999.4" // its daemon says that it lives, once
)

// publisher is somebody who makes releases, with keys and a folder of their own.
type publisher struct {
	t    testing.TB
	dir  string // the release folder
	repo *repository.Repository
}

// newPublisher makes keys and an empty release folder in dir.
func newPublisher(t testing.TB, dir string) *publisher {
	t.Helper()
	for _, role := range []string{"root", "targets", "snapshot", "timestamp"} {
		if _, err := keys.Generate(filepath.Join(dir, "keys"), role, nil); err != nil {
			t.Fatal(err)
		}
	}
	p := openPublisher(t, dir)
	if _, err := p.repo.Init(repository.Setup{}); err != nil {
		t.Fatal(err)
	}
	return p
}

// openPublisher is the publisher whose keys lie in dir.
func openPublisher(t testing.TB, dir string) *publisher {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "keys", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files { // a copy has lost its mode
		if err := os.Chmod(file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, err := keys.Load(filepath.Join(dir, "keys"), nil)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "releases")
	return &publisher{t, folder, repository.Open(folder, all, repository.Options{})}
}

// root is the metadata that nodes trust.
func (p *publisher) root() string {
	p.t.Helper()
	raw, err := p.repo.RootMetadata()
	if err != nil {
		p.t.Fatal(err)
	}
	return string(raw)
}

func (p *publisher) publish(r repository.Release) {
	p.t.Helper()
	defer r.Parts.Close()
	if _, err := p.repo.Create(p.t.Context(), r); err != nil {
		p.t.Fatal(err)
	}
}

// publishImage publishes a disk image as it is.
func (p *publisher) publishImage(file string) { p.publishWith(file, repository.Release{}) }

// publishWith publishes a disk image with the packs and models of a release.
func (p *publisher) publishWith(file string, r repository.Release) {
	p.t.Helper()
	var err error
	if r.Parts, err = repository.OpenImage(file); err != nil {
		p.t.Fatal(err)
	}
	p.publish(r)
}

// publishAltered publishes the root of a disk image with a kernel image that calls
// itself version and has more words on its command line.
func (p *publisher) publishAltered(file, version, words string) {
	p.t.Helper()
	disk, err := image.Open(file)
	if err != nil {
		p.t.Fatal(err)
	}
	defer disk.Close()
	_, kernel, err := disk.KernelImage()
	if err != nil {
		p.t.Fatal(err)
	}
	kernel = alterImage(p.t, kernel, func(section, text string) string {
		switch section {
		case ".cmdline":
			return strings.TrimSpace(text + " " + words)
		case ".osrel":
			return strings.ReplaceAll(text, worksVersion, version)
		}
		return text
	})
	raw, err := os.Open(file)
	if err != nil {
		p.t.Fatal(err)
	}
	defer raw.Close()
	where, _ := disk.Partition(release.PartitionRootA)
	parts, err := repository.NewParts(kernel, io.NewSectionReader(raw, where.Start, where.Size))
	if err != nil {
		p.t.Fatal(err)
	}
	p.publish(repository.Release{Parts: parts})
}

// alterImage changes text sections of a unified kernel image or boot loader, within
// the room that they have, and signs it again.
func alterImage(t testing.TB, signed []byte, edit func(section, text string) string) []byte {
	t.Helper()
	header := int(binary.LittleEndian.Uint32(signed[0x3c:]))
	optional, size := header+24, int(binary.LittleEndian.Uint16(signed[header+20:]))
	certificates := signed[optional+144:]
	out := bytes.Clone(signed[:binary.LittleEndian.Uint32(certificates)])
	clear(out[optional+144 : optional+152])
	file, err := pe.NewFile(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range file.Sections {
		if s.Name != ".cmdline" && s.Name != ".osrel" && s.Name != ".sdmagic" {
			continue
		}
		text := edit(s.Name, string(out[s.Offset:][:s.VirtualSize]))
		if len(text) > int(s.Size) {
			t.Fatalf("%s has room for %d bytes, %d are needed", s.Name, s.Size, len(text))
		}
		clear(out[s.Offset:][:s.Size])
		copy(out[s.Offset:], text)
		binary.LittleEndian.PutUint32(out[optional+size+40*i+8:], uint32(len(text)))
	}
	cache, err := debian.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	key, err := uki.DevelopmentKey(cache)
	if err != nil {
		t.Fatal(err)
	}
	again, err := key.Sign(out)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// publishDaemon publishes the tree under test with the program in testdata in
// place of its daemon.
func (p *publisher) publishDaemon(version, program string) {
	p.t.Helper()
	disk, err := image.Open(machinetest.ImageOf(p.t, worksVersion))
	if err != nil {
		p.t.Fatal(err)
	}
	defer disk.Close()
	kernel, err := disk.UKI()
	if err != nil {
		p.t.Fatal(err)
	}
	verity, err := kernel.Verity()
	if err != nil {
		p.t.Fatal(err)
	}
	root, _, err := disk.Root(verity)
	if err != nil {
		p.t.Fatal(err)
	}
	programs := p.t.TempDir()
	for _, name := range []string{"usr/sbin/init", "usr/bin/oscine-log", "usr/bin/containerd-shim-runc-v2"} {
		content, err := fs.ReadFile(root, name)
		if err == nil {
			err = os.WriteFile(filepath.Join(programs, filepath.Base(name)), content, 0o755)
		}
		if err != nil {
			p.t.Fatal(err)
		}
	}
	goBuild(p.t, runtime.GOARCH, programs, "./testdata/"+program)
	if err := os.Rename(filepath.Join(programs, program), filepath.Join(programs, "oscined")); err != nil {
		p.t.Fatal(err)
	}
	file := filepath.Join(p.t.TempDir(), version+".img")
	if _, err := image.Build(p.t.Context(), image.Options{Version: version, Programs: programs, Source: "../..", Out: file}); err != nil {
		p.t.Fatal(err)
	}
	p.publishImage(file)
}
