package image

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/image/layout"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/secureboot"
	"oscine.dev/oscine/internal/uki"
)

// Options choose what [Build] builds. The zero value of each field is its
// default.
type Options struct {
	Arch     string    // amd64 or arm64; this machine's
	Flavour  string    // of the kernel: cloud, metal or rt; cloud
	Version  string    // of Oscine; [DefaultVersion]
	Size     int64     // of the disk in bytes; 1 GiB
	Out      string    // file to write; oscine-VERSION-FLAVOUR-ARCH.img in the current folder
	Source   string    // folder inside Oscine's checkout; the current one
	Programs string    // folder of built programs, instead of building them
	Key      string    // PEM file of the signing key and its certificate; a key of this machine
	Secure   string    // folder with the keys of Secure Boot, see [secureboot.Generate], in place of Key; none
	Compress bool      // also write FILE.zst
	Releases string    // file of the TUF root metadata that upgrades are trusted by; none
	Cmdline  string    // more kernel parameters, put behind the image's own
	Log      io.Writer // progress lines; none
}

// DefaultVersion is the version of images that are not released.
const DefaultVersion = "0.1.0"

// Result is what [Build] built.
type Result struct {
	File     string `json:"file"`
	Version  string `json:"version"`
	Arch     string `json:"arch"`
	Kernel   string `json:"kernel"`
	RootHash string `json:"rootHash"`
	UKI      string `json:"uki"` // name on the ESP

	PCR11 string `json:"pcr11"` // of a TPM once the kernel image has started, SHA-256 in hex

	Size          int64 `json:"size"`                 // of the disk, bytes
	Allocated     int64 `json:"allocated"`            // what the sparse file takes, bytes
	Compressed    int64 `json:"compressed,omitempty"` // of FILE.zst, bytes, when it was asked for
	RootSize      int64 `json:"rootSize"`             // with the hash tree, bytes
	UKISize       int64 `json:"ukiSize"`              // bytes
	InitramfsSize int64 `json:"initramfsSize"`        // bytes in the kernel image

	Took time.Duration `json:"took"` // nanoseconds
}

func (o *Options) fill() error {
	set := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	set(&o.Arch, hostArch)
	set(&o.Flavour, FlavourCloud)
	set(&o.Version, DefaultVersion)
	set(&o.Source, ".")
	set(&o.Out, fmt.Sprintf("oscine-%s-%s-%s.img", o.Version, o.Flavour, o.Arch))
	if o.Size == 0 {
		o.Size = 1 << 30
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	switch {
	case o.Arch != "amd64" && o.Arch != "arm64":
		return fmt.Errorf("--arch %q: Oscine runs on amd64 and arm64", o.Arch)
	case o.Flavour != FlavourCloud && o.Flavour != FlavourMetal && o.Flavour != FlavourRT:
		return fmt.Errorf("--kernel %q: use cloud, metal or rt", o.Flavour)
	case !release.ValidVersion(o.Version):
		return fmt.Errorf("--version %q: use letters, digits, points and hyphens", o.Version)
	case o.Key != "" && o.Secure != "":
		return errors.New("--key and --secureboot both name a signing key: use one of them")
	case o.Size < 0 || o.Size > 1<<50:
		return fmt.Errorf("--size %d: out of range", o.Size)
	}
	return nil
}

// Build makes a disk image. The file appears when it is complete; an error or
// an interrupt leaves nothing behind.
func Build(ctx context.Context, o Options) (*Result, error) {
	began := time.Now()
	if err := o.fill(); err != nil {
		return nil, err
	}
	out, err := filepath.Abs(o.Out)
	if err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(filepath.Dir(out), ".oscine-image-")
	if err != nil {
		return nil, fmt.Errorf("build the image: %w", err)
	}
	defer os.RemoveAll(work)
	b := &builder{Options: o, work: work}
	if err := b.prepare(ctx); err != nil {
		return nil, err
	}
	result, err := b.assemble(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.publish(ctx, result, out); err != nil {
		return nil, err
	}
	result.File, result.Took = o.Out, time.Since(began)
	return result, nil
}

// builder is one run of [Build].
type builder struct {
	Options
	work     string
	source   *debian.Source
	key      *uki.Key
	enrol    map[string][]byte // files by which the firmware takes the keys of Secure Boot
	kernel   *kernel
	bin      string // folder of the built programs
	programs []program
	boot     *debian.Tree // systemd-boot
}

// publish puts what was built in its place.
func (b *builder) publish(ctx context.Context, r *Result, out string) error {
	disk := filepath.Join(b.work, "disk")
	var st syscall.Stat_t
	if err := syscall.Stat(disk, &st); err != nil {
		return err
	}
	r.Allocated = st.Blocks * 512
	if b.Compress {
		b.say("compress the image")
		size, err := compressFile(ctx, disk, disk+".zst")
		if err != nil {
			return fmt.Errorf("compress the image: %w", err)
		}
		r.Compressed = size
		if err := durable.Replace(disk+".zst", out+".zst"); err != nil {
			return err
		}
	}
	return durable.Replace(disk, out)
}

func (b *builder) say(format string, args ...any) { fmt.Fprintf(b.Log, format+"\n", args...) }

// prepare fetches and builds what the image is made of.
func (b *builder) prepare(ctx context.Context) error {
	cache, err := debian.CacheDir()
	if err != nil {
		return err
	}
	if b.source, err = debian.Open(b.Log); err != nil {
		return err
	}
	switch {
	case b.Secure != "":
		b.key, b.enrol, err = secureboot.Load(b.Secure)
	case b.Key != "":
		b.key, err = uki.LoadKey(b.Key)
	default:
		b.key, err = uki.DevelopmentKey(cache)
	}
	if err != nil {
		return err
	}
	if b.bin = b.Programs; b.bin != "" {
		b.programs, err = givenPrograms(b.bin)
	} else {
		err = b.compile(ctx)
	}
	if err != nil {
		return err
	}
	if b.kernel, err = openKernel(ctx, b.source, cache, b.Flavour, b.Arch); err != nil {
		return err
	}
	b.boot, err = b.source.Tree(ctx, "boot", b.Arch)
	return err
}

// bootFile is a file of systemd-boot's package.
func (b *builder) bootFile(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(b.boot.Dir, "usr/lib/systemd/boot/efi", name))
}

func (b *builder) compile(ctx context.Context) error {
	source, err := sourceDir(b.Source)
	if err != nil {
		return err
	}
	b.bin = filepath.Join(b.work, "bin")
	if err := os.Mkdir(b.bin, 0o755); err != nil {
		return err
	}
	b.say("build Oscine's programs for %s", b.Arch)
	said, err := buildBPF(ctx, source)
	if err != nil {
		return err
	}
	if said != "" {
		b.say("%s", said)
	}
	b.programs, err = buildPrograms(ctx, source, b.Arch, b.Version, b.bin)
	return err
}

// assemble makes root, unified kernel image and disk.
func (b *builder) assemble(ctx context.Context) (*Result, error) {
	files, err := b.rootFiles(ctx)
	if err != nil {
		return nil, err
	}
	root, err := os.Create(filepath.Join(b.work, "root"))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	b.say("write the root: %d files", len(files))
	verity, err := writeRoot(ctx, files, root)
	if err != nil {
		return nil, err
	}
	rootSize, err := root.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	kernel, initramfs, err := b.uki(ctx, verity)
	if err != nil {
		return nil, err
	}
	if err := checkKernelSize(int64(len(kernel))); err != nil {
		return nil, err
	}
	pcr, err := uki.PCR11(kernel)
	if err != nil {
		return nil, err
	}
	l, err := layout.Plan(b.Size, rootSize, layout.MinData)
	if err != nil {
		return nil, fmt.Errorf("--size: %w", err)
	}
	name := release.NewEntry("oscine", b.Version).File()
	boot, err := b.espFiles(name, kernel)
	if err != nil {
		return nil, err
	}
	b.say("write the disk: %d MiB, slots of %d MiB, data of %d MiB", l.Disk/layout.MiB, l.Slot/layout.MiB, l.DataSize()/layout.MiB)
	if err := b.disk(ctx, l, verity, io.NewSectionReader(root, 0, rootSize), boot); err != nil {
		return nil, err
	}
	return &Result{
		Version: b.Version, Arch: b.Arch, Kernel: b.kernel.version, RootHash: hex.EncodeToString(verity.RootHash[:]), UKI: name, PCR11: hex.EncodeToString(pcr[:]),
		Size: l.Disk, RootSize: rootSize, UKISize: int64(len(kernel)), InitramfsSize: int64(initramfs),
	}, nil
}

// checkKernelSize refuses a kernel image with which a machine could not go back to an
// older version: that takes room for three.
func checkKernelSize(size int64) error {
	if size > layout.MaxKernel {
		return fmt.Errorf("the unified kernel image has %d bytes, and the ESP has room for three of at most %d, as going back to an older version needs: take modules out of the initramfs (internal/image/kernel.go)", size, layout.MaxKernel)
	}
	return nil
}

func (b *builder) disk(ctx context.Context, l layout.Layout, v release.Verity, root io.Reader, boot []layout.File) error {
	name := filepath.Join(b.work, "disk")
	disk, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	err = writeDisk(ctx, disk, l, v, root, boot)
	if err = errors.Join(err, disk.Close()); err != nil {
		return err
	}
	return makeData(ctx, b.source, name, l, v)
}

// rootFiles lists everything that the root will hold.
func (b *builder) rootFiles(ctx context.Context) ([]File, error) {
	c := newContent()
	c.component(Component{Name: "oscine", Version: b.Version, Kind: "oscine", Licence: "Apache-2.0"})
	c.skeleton(b.Version, b.Arch)
	for _, p := range b.programs {
		if err := c.addProgram(p, filepath.Join(b.bin, path.Base(p.pkg))); err != nil {
			return nil, err
		}
	}
	if err := c.moduleLicences(ctx, b.Source); err != nil {
		b.say("%v", err)
	}
	if err := c.addRuntime(ctx, b.source, b.Arch); err != nil {
		return nil, err
	}
	if err := c.addCertificates(ctx, b.source, b.Arch); err != nil {
		return nil, err
	}
	if err := b.addInstallation(ctx, c); err != nil {
		return nil, err
	}
	if b.Releases != "" {
		if err := c.addTrustedRoot(b.Releases); err != nil {
			return nil, err
		}
	}
	b.say("collect the modules of kernel %s", b.kernel.version)
	if err := c.addModules(ctx, b.kernel); err != nil {
		return nil, err
	}
	if names := c.unlicensed(); len(names) > 0 {
		b.say("the SBOM will tell no licence of %s", strings.Join(names, ", "))
	}
	text, err := c.contentsJSON(b.Version, b.Arch, b.kernel.version)
	if err != nil {
		return nil, err
	}
	c.text(ContentsFile, "what this root holds and why", "oscine:oscine", text)
	return c.list(), nil
}

// espFiles are the files of the ESP.
func (b *builder) espFiles(name string, kernel []byte) ([]layout.File, error) {
	files, err := b.loaderFiles()
	if err != nil {
		return nil, err
	}
	return append(files, layout.File{Path: path.Join(ukiFolder, name), Data: kernel}), nil
}

// loaderFiles are the files of the ESP beside kernel images.
func (b *builder) loaderFiles() ([]layout.File, error) {
	name := layout.LoaderName(b.Arch)
	loader, err := b.bootFile(name)
	if err != nil {
		return nil, err
	}
	if loader, err = b.key.Sign(loader); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	settings := "timeout 0\neditor no\nauto-firmware no\n"
	files := []layout.File{
		{Path: layout.LoaderPath(b.Arch), Data: loader},
		{Path: "/loader/entries.srel", Data: []byte("type1\n")},
	}
	if b.enrol != nil {
		// Without a person: in a virtual machine at once, on metal after a countdown.
		settings += "secure-boot-enroll force\n"
		for _, name := range secureboot.Variables() {
			files = append(files, layout.File{Path: path.Join(secureboot.EnrolFolder, name+".auth"), Data: b.enrol[name]})
		}
	}
	return append(files, layout.File{Path: "/loader/loader.conf", Data: []byte(settings)}), nil
}

// uki assembles and signs the unified kernel image; it also returns the size
// of the initramfs in it.
func (b *builder) uki(ctx context.Context, v release.Verity) (signed []byte, initramfs int, err error) {
	b.say("assemble the unified kernel image")
	stub, err := b.bootFile(map[string]string{"amd64": "linuxx64.efi.stub", "arm64": "linuxaa64.efi.stub"}[b.Arch])
	if err != nil {
		return nil, 0, err
	}
	vmlinuz, err := os.ReadFile(filepath.Join(b.kernel.dir, "vmlinuz"))
	if err != nil {
		return nil, 0, err
	}
	archive, err := buildInitramfs(ctx, b.kernel, filepath.Join(b.bin, "init"))
	if err == nil {
		archive, err = packInitramfs(archive, b.Arch, b.Flavour)
	}
	if err != nil {
		return nil, 0, err
	}
	// The kernel comes last: it may unpack itself beyond its own end.
	unsigned, err := uki.Assemble(stub, []uki.Section{
		{Name: ".osrel", Data: []byte(osRelease(b.Version))},
		{Name: ".cmdline", Data: []byte(commandLine(b.Arch, b.Flavour, v, b.enrol != nil, b.Cmdline))},
		{Name: ".uname", Data: []byte(b.kernel.version)},
		{Name: ".initrd", Data: archive},
		{Name: ".linux", Data: vmlinuz},
	})
	if err != nil {
		return nil, 0, err
	}
	signed, err = b.key.Sign(unsigned)
	return signed, len(archive), err
}
