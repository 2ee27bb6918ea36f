package pack

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/pki"
)

// Errors of a store that a caller can act on.
var (
	// ErrNotInstalled means that the store holds no such pack.
	ErrNotInstalled = errdefs.ErrNotFound.WithMessage("pack not installed")
	// ErrNotPack means that a file is no pack that this node can use.
	ErrNotPack = errdefs.ErrInvalidArgument.WithMessage("not a pack for this node")
	// ErrDamaged means that a pack's file no longer has its digest.
	ErrDamaged = errdefs.ErrDataLoss.WithMessage("pack damaged")
)

// MaxBytes bounds the size of a pack.
const MaxBytes = 8 << 30

// Store keeps packs in a folder of the data partition, one version of each name and
// those older ones on which objects run still, and mounts them. It is safe for concurrent use within one
// process.
type Store struct {
	dir    string // HEX.erofs, NAME.json that says which of them is the pack of a name, NAME.staged and NAME.HEX.kept
	mounts string // HEX/, mount points
	cpu    string // of procfs, cpuinfo
	trust  *x509.CertPool

	// Revoked reports certificates of admins whose signatures count no longer; nil
	// means none. What is installed already stays. Set it before the first use.
	Revoked func(serial string) bool
	// Release is the version of Oscine that runs; empty where it is not known. Set it
	// before the first use.
	Release string
	// Pinned reports that a release of Oscine pins the pack of a digest, with what it says
	// of the hash tree, and that the release was verified here; nil means none. Set it
	// before the first use.
	Pinned func(digest string) (verity string, ok bool)

	// Users are the objects that run on the pack of a digest, as Kind/name; nil means none.
	// Set it before the first use.
	Users func(name, digest string) []string
	// Kernel is the running kernel, as uname -r prints it, where packs may bring modules
	// for it; "" elsewhere. Set it before the first use.
	Kernel string
	// TryModule reports why the running kernel would refuse a module; nil means that it
	// is not tried. Set it before the first use.
	TryModule func(file string) error
	// HasDevice reports whether a device of a driver is on this machine; nil means that all
	// are. Set it before the first use.
	HasDevice func(driver *KernelDriver) bool

	// Damaged is called when a pack was found damaged that was not known to be. It
	// returns at once; nil tells nobody. Set it before the first use.
	Damaged func()

	// Uncleared says which old mounts OpenStore could not take away; nil: none stays. The
	// store works without that.
	Uncleared error

	mapping string                // how the names of this store's mappings begin
	gap     atomic.Pointer[error] // why packs are not mounted through dm-verity; nil: they are

	pulling  chan struct{} // holds one token while a pack is pulled
	mounting sync.Mutex    // held while files are mounted, which reads them whole; taken before mu
	mu       sync.RWMutex  // held while records change

	broken map[string]time.Time // by digest, when files were found damaged since the start; under mu
}

// OpenStore opens the store in dir, which it makes when absent, and clears away what an
// interrupted installation left, and what has no record that can be read. Packs are
// mounted below mounts, if an admin of the authority trust has signed them.
func OpenStore(dir, mounts string, trust *x509.CertPool) (*Store, error) {
	for _, d := range []string{dir, mounts} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("open the store of packs: %w", err)
		}
	}
	if err := clear(dir); err != nil {
		return nil, fmt.Errorf("clear the store of packs: %w", err)
	}
	s := &Store{dir: dir, mounts: mounts, cpu: "/proc/cpuinfo", trust: trust, pulling: make(chan struct{}, 1), broken: map[string]time.Time{}}
	s.mapping = fmt.Sprintf("oscine-pack-%.4x-", sha256.Sum256([]byte(mounts)))
	if err := s.sweep(); err != nil {
		return nil, fmt.Errorf("clear the store of packs: %w", err)
	}
	if err := s.clearMounts(); err != nil {
		return nil, fmt.Errorf("clear the mounts of packs: %w", err)
	}
	return s, nil
}

// clear removes what is neither a record nor the file of one, nor a download that can go on.
func clear(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	counts := map[string]bool{}
	for _, e := range entries {
		if name, ok := recordOf(e.Name()); ok {
			if rec, err := readRecord(filepath.Join(dir, e.Name()), name); err == nil {
				counts[e.Name()], counts[rec.hex()+".erofs"] = true, true
			}
		}
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), partial) && fresh(e) {
			continue
		}
		if !counts[e.Name()] {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Install stores a pack from r and returns what it is. Another version of the
// same name goes, or is kept as long as objects run on it. It
// returns ErrNotPack, and changes nothing, when r holds anything else or a
// pack for another architecture, and ErrUntrusted unless the signature is an
// admin's for just this file.
func (s *Store) Install(ctx context.Context, r io.Reader, signature pki.Signature) (*Info, error) {
	f, err := os.CreateTemp(s.dir, "new-")
	if err != nil {
		return nil, fmt.Errorf("install the pack: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	sum := sha256.New()
	size, err := copyPack(ctx, io.MultiWriter(f, sum), r)
	if err != nil {
		return nil, fmt.Errorf("install the pack: %w", err)
	}
	return s.take(f, "sha256:"+hex.EncodeToString(sum.Sum(nil)), size, signature, nil)
}

// take makes a file with a digest the pack of its name. If it came from a registry, it
// is to be the pack, version and architecture that the artifact there promised.
func (s *Store) take(f *os.File, digest string, size int64, signature pki.Signature, from *Artifact) (*Info, error) {
	if err := f.Sync(); err != nil {
		return nil, fmt.Errorf("install the pack: %w", err)
	}
	verity, err := verityOf(f)
	if err == nil {
		err = s.welcome(digest, verity, signature)
	}
	if err != nil {
		return nil, fmt.Errorf("install the pack: %w", err)
	}
	s.mounting.Lock()
	defer s.mounting.Unlock()
	manifest, verity, err := s.inspect(f, s.checkKernel)
	if err != nil {
		return nil, fmt.Errorf("install the pack: %w", err)
	}
	if m := from; m != nil && (manifest.Name != m.Name || manifest.Version != m.Version || manifest.Arch != m.Arch) {
		return nil, fmt.Errorf("%w: the registry promised the pack %s %s for %s, and sent %s %s for %s", ErrNotPack,
			m.Name, m.Version, m.Arch, manifest.Name, manifest.Version, manifest.Arch)
	}
	rec := record{Digest: digest, SizeBytes: size, Installed: time.Now().UTC().Truncate(time.Second), Manifest: *manifest, Signature: signature, Verity: verity}
	if from != nil {
		rec.Source, rec.PlainHTTP = from.Reference, from.PlainHTTP
	}
	if err := s.commit(f.Name(), &rec); err != nil {
		return nil, fmt.Errorf("install the pack %s: %w", manifest.Name, err)
	}
	return s.info(&rec), nil
}

// copyPack copies at most MaxBytes and checks the first block on the way, so
// that something else is refused before it fills the disk.
func copyPack(ctx context.Context, w io.Writer, r io.Reader) (int64, error) {
	head, err := readHead(r)
	if err != nil {
		return 0, err
	}
	if _, err := w.Write(head); err != nil {
		return 0, err
	}
	size := int64(len(head))
	for ctx.Err() == nil {
		n, err := io.CopyN(w, r, 4<<20)
		if size += n; size > MaxBytes {
			return 0, fmt.Errorf("%w: it is larger than %d bytes", ErrNotPack, int64(MaxBytes))
		}
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, ctx.Err()
}

// Where an erofs file has its superblock, within the bytes that readHead reads.
const (
	headBytes  = 4096
	superblock = 1024
)

// readHead reads the first block of a pack.
func readHead(r io.Reader) ([]byte, error) {
	head := make([]byte, headBytes)
	if _, err := io.ReadFull(r, head); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("%w: the file is shorter than any pack", ErrNotPack)
		}
		return nil, err
	}
	if binary.LittleEndian.Uint32(head[superblock:]) != unix.EROFS_SUPER_MAGIC_V1 {
		return nil, fmt.Errorf("%w: it is no erofs file", ErrNotPack)
	}
	return head, nil
}

// inspect checks the hash tree of a file, mounts it for a moment and reads its
// manifest. More checks what is mounted in a folder; nil: nothing more.
func (s *Store) inspect(f *os.File, more func(m *Manifest, dir string) error) (m *Manifest, verity string, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, "", err
	}
	tree, err := readVerity(f, info.Size())
	if err == nil && tree != nil {
		verity, err = tree.String(), checkTree(f, tree)
	}
	if err != nil {
		return nil, "", err
	}
	dir, err := os.MkdirTemp(s.mounts, "inspect-")
	if err != nil {
		return nil, "", err
	}
	defer os.Remove(dir)
	if err := mountRead(f, dir); err != nil {
		return nil, "", err
	}
	m, err = Read(dir)
	if err == nil && m.Arch != runtime.GOARCH {
		err = fmt.Errorf("%w: pack %s is for %s, this node is %s", ErrNotPack, m.Name, m.Arch, runtime.GOARCH)
	}
	if err == nil {
		err = m.checkCPU(s.cpu)
	}
	if err == nil && more != nil {
		err = more(m, dir)
	}
	return m, verity, errors.Join(err, unmount(dir))
}

// commit makes a file the pack of its name.
func (s *Store) commit(tmp string, rec *record) error {
	name := rec.Manifest.Name
	var users []string
	if before, err := s.Find(name); err == nil && before.Name == name && before.Digest != rec.Digest && before.Damaged.IsZero() && s.Users != nil {
		users = s.Users(name, before.Digest)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before, err := readRecord(s.recordFile(name), name)
	next, e := s.readStaged(name)
	counts := e == nil && next.Release == s.Release
	if counts {
		before, err = next, nil
	}
	if err == nil {
		if err := s.keepFor(users, before, rec.Digest); err != nil {
			return err
		}
	}
	if err := s.replace(tmp, s.recordFile(name), rec); err != nil {
		return err
	}
	if counts { // it would count in place of this one
		if err := s.dropStaged(next); err != nil {
			return err
		}
	}
	return errors.Join(s.redirect(name, rec.Digest), s.sweep())
}

// replace gives a pack its name, then writes its record to a file, which makes it
// count in place of the one before, and then removes that.
func (s *Store) replace(tmp, file string, rec *record) error {
	before, err := readRecord(file, rec.Manifest.Name)
	if err != nil {
		before = nil // there is none that counts
	}
	if err := durable.Rename(tmp, s.file(rec.hex())); err != nil {
		return err
	}
	if err := s.noteRepaired(rec.Digest); err != nil {
		return err
	}
	if err := rec.write(file); err != nil {
		return err
	}
	if before == nil {
		return nil
	}
	return s.dropFile(s.info(before))
}

func (s *Store) recordFile(name string) string { return filepath.Join(s.dir, name+".json") }

func (s *Store) file(hexDigest string) string { return filepath.Join(s.dir, hexDigest+".erofs") }

func (s *Store) info(rec *record) *Info {
	return &Info{
		Manifest: rec.Manifest, Digest: rec.Digest, SizeBytes: rec.SizeBytes, Installed: rec.Installed, File: s.file(rec.hex()), Signature: rec.Signature, Release: rec.Release,
		Verity: rec.Verity, Unverified: s.unverified(rec.Verity), Damaged: rec.Damaged, Source: rec.Source, PlainHTTP: rec.PlainHTTP, Next: rec.Next, Stays: rec.Stays,
	}
}

// List returns the installed packs, sorted by name. It waits for no pack that is
// being mounted.
func (s *Store) List() ([]Info, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.list()
}

func (s *Store) list() ([]Info, error) {
	records, err := s.records()
	if err != nil {
		return nil, err
	}
	packs := []Info{}
	for file, rec := range records {
		switch next := records[rec.Manifest.Name+staged]; {
		case file == rec.Manifest.Name+".json" && (next == nil || next.Release != s.Release):
			packs = append(packs, *s.info(rec))
		case rec == next && rec.Release == s.Release:
			packs = append(packs, *s.info(rec))
		}
	}
	slices.SortFunc(packs, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return packs, nil
}

// Find returns the pack of that name or digest, or the one that holds the engine of
// that name, or ErrNotInstalled. By its digest it finds an older version too that is kept.
func (s *Store) Find(name string) (*Info, error) {
	packs, err := s.All()
	if err != nil {
		return nil, err
	}
	for i := range packs {
		if packs[i].Digest == name {
			return &packs[i], nil
		}
	}
	packs = slices.DeleteFunc(packs, func(p Info) bool { return p.Next != "" })
	for _, byEngine := range []bool{false, true} {
		for i := range packs {
			if packs[i].Name == name && !byEngine || byEngine && slices.Contains(packs[i].Engines, name) {
				return &packs[i], nil
			}
		}
	}
	return nil, fmt.Errorf("%w: %s: %s", ErrNotInstalled, name, howToGet(name))
}

// Remove removes the pack of that name, or returns ErrNotInstalled.
// Containers that run from it keep it until they end.
func (s *Store) Remove(name string) error {
	s.mounting.Lock()
	defer s.mounting.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	packs, err := s.list()
	if err != nil {
		return err
	}
	for i := range packs {
		if packs[i].Name == name {
			return s.drop(&packs[i])
		}
	}
	return fmt.Errorf("%w: %s (see oscine pack list)", ErrNotInstalled, name)
}

// drop takes the records first: without them the files do not count.
func (s *Store) drop(p *Info) error {
	var errs []error
	if rec, err := readRecord(s.recordFile(p.Name), p.Name); err == nil {
		errs = append(errs, durable.Remove(s.recordFile(p.Name)), s.dropFile(s.info(rec)))
	}
	if next, err := s.readStaged(p.Name); err == nil && next.Release == s.Release {
		errs = append(errs, s.dropStaged(next))
	}
	if err := errors.Join(append(errs, s.sweep())...); err != nil {
		return fmt.Errorf("remove the pack %s: %w", p.Name, err)
	}
	return nil
}

// dropFile removes the file of a pack and its mount, unless a record names it still.
func (s *Store) dropFile(p *Info) error {
	records, err := s.records()
	if err != nil {
		return err
	}
	for _, rec := range records {
		if rec.Digest == p.Digest {
			return nil
		}
	}
	if err := errors.Join(durable.Remove(p.File), s.dropMount(s.mountDir(p))); err != nil {
		return fmt.Errorf("remove the pack %s: %w", p.Name, err)
	}
	return nil
}
