package slot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/uki"
	"oscine.dev/oscine/internal/update"
)

// Reasons to refuse a release before anything is changed, beside those of
// package update.
var (
	// ErrRunning: the release is the one that runs.
	ErrRunning = errdefs.ErrAlreadyExists.WithMessage("this version runs already")
	// ErrOnTrial: the running version was not found good yet, so there is nothing
	// to go back to.
	ErrOnTrial = errdefs.ErrFailedPrecondition.WithMessage("the running version is on trial itself")
	// ErrNoRoom: the slot or the ESP is too small.
	ErrNoRoom = errdefs.ErrResourceExhausted.WithMessage("the release does not fit")
	// ErrImage: the kernel image must not be started.
	ErrImage = errdefs.ErrPermissionDenied.WithMessage("the release's kernel image is refused")
	// ErrRoot: what lies in the slot is not the release's root.
	ErrRoot = errdefs.ErrDataLoss.WithMessage("the slot does not hold the release's root")
)

// espReserve is what stays free on the ESP: room for the folder to grow.
const espReserve = 1 << 20

// Check refuses a release that cannot be written into the idle slot. It changes
// nothing. Errors: ErrRunning, ErrOnTrial, ErrNoRoom, ErrUnusable.
func (s *Slots) Check(m *update.Manifest) error {
	state, err := s.State()
	if err != nil {
		return err
	}
	return state.check(m)
}

func (state *State) check(m *update.Manifest) error {
	need := m.Image.Size + espReserve
	if !m.Newer(state.Active.Version) {
		need += state.ImageSize // a copy, while the running version is put behind
	}
	switch {
	case state.Active.Version == m.Version:
		return fmt.Errorf("%s: %w", m.Version, ErrRunning)
	case state.Active.Health != Good:
		return fmt.Errorf("%w: %s is %s: wait until it is found good", ErrOnTrial, state.Active.Version, state.Active.Health)
	case m.Root.Size > state.SlotSize:
		return fmt.Errorf("%w: its root has %d bytes, the slot %s has %d: install this machine again with larger slots", ErrNoRoom, m.Root.Size, state.Idle.Slot, state.SlotSize)
	case need > state.FreeWithout:
		return fmt.Errorf("%w: its kernel image needs %d bytes, the ESP has room for %d without the old one: remove foreign files from it", ErrNoRoom, need, state.FreeWithout)
	}
	return nil
}

// CheckImage refuses a kernel image that is not of the release or that the
// firmware would refuse: it must be signed by the key that signed the running
// one. It returns how the image opens its root. Errors: ErrImage.
func (s *Slots) CheckImage(m *update.Manifest, image []byte) (release.Verity, error) {
	refused := func(format string, args ...any) (release.Verity, error) {
		return release.Verity{}, fmt.Errorf("%w: %w", ErrImage, fmt.Errorf(format, args...))
	}
	if sha256.Sum256(image) != m.Image.SHA256 {
		return refused("it is not the file that the manifest names")
	}
	head, err := uki.Read(image)
	if err != nil {
		return refused("%w", err)
	}
	if arch := uki.Arch(image); arch != m.Arch {
		return refused("it is for %s, the manifest says %s", arch, m.Arch)
	}
	if head.Uname != m.Kernel {
		return refused("it holds the kernel %q, the manifest says %q", head.Uname, m.Kernel)
	}
	if flavour := release.Flavour(head.Uname); flavour != m.Flavour {
		return refused("its kernel %q is of the flavour %s, the manifest says %s", head.Uname, flavour, m.Flavour)
	}
	if version := head.Version(); version != m.Version {
		return refused("it says it is version %q, the manifest says %s", version, m.Version)
	}
	v, err := head.Verity()
	if err != nil {
		return refused("%w", err)
	}
	if got := fmt.Sprintf("%x", v.RootHash); got != m.RootHash {
		return refused("it opens the root %s, the manifest says %s", got, m.RootHash)
	}
	if int64(v.Blocks) >= m.Root.Size/release.BlockSize {
		return refused("its root has %d blocks and a hash tree, the manifest says %d bytes for both", v.Blocks, m.Root.Size)
	}
	signer, err := uki.Signer(image)
	if err != nil {
		return refused("%w", err)
	}
	trusted, err := s.signer()
	if err != nil {
		return release.Verity{}, err
	}
	if trusted != nil && !bytes.Equal(trusted, signer.Raw) {
		return refused("it is signed by %q, which is not the key of the running version", signer.Subject)
	}
	return v, nil
}

// RunningImage is the kernel image of the running version.
func (s *Slots) RunningImage() (image []byte, err error) {
	err = s.disk.ESP(func(esp ESP) error {
		_, running, err := s.read(esp)
		if err == nil {
			image, err = readAll(esp, running.path)
		}
		return err
	})
	return image, err
}

// signer is the certificate of the running kernel image; nil where that has no
// signature.
func (s *Slots) signer() (der []byte, err error) {
	image, err := s.RunningImage()
	if err != nil {
		return nil, err
	}
	cert, err := uki.Signer(image)
	if errors.Is(err, uki.ErrUnsigned) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the running version's kernel image: %w", err)
	}
	return cert.Raw, nil
}

// Clear removes every kernel image but that of the running version from the ESP,
// and returns when that is on the disk: only then may the idle slot be
// overwritten, for an image whose root is gone must not be started.
func (s *Slots) Clear() error {
	return s.disk.ESP(func(esp ESP) error {
		state, running, err := s.read(esp)
		if err != nil {
			return err
		}
		if state.Active.Health != Good {
			return fmt.Errorf("%w: %s", ErrOnTrial, state.Active.Version)
		}
		return clear(esp, running.path)
	})
}

// clear removes every kernel image of ours but those to keep.
func clear(esp ESP, keep ...string) error {
	entries, err := readEntries(esp)
	if err != nil {
		return err
	}
	removed := false
	for _, e := range entries {
		if slices.Contains(keep, e.path) {
			continue
		}
		if err := esp.Remove(e.path); err != nil {
			return fmt.Errorf("remove the kernel image %s: %w", e.path, err)
		}
		removed = true
	}
	if !removed {
		return nil
	}
	return esp.Flush()
}

// Idle opens the partition of the idle slot, to be written after Clear.
func (s *Slots) Idle() (Partition, error) {
	slot := other(s.facts().Slot)
	p, err := s.disk.Open(slot)
	if err != nil {
		return nil, fmt.Errorf("open slot %s: %w", slot, err)
	}
	return p, nil
}

// Running is the root that runs, as a base for deltas. The caller closes it.
func (s *Slots) Running() (*update.Base, io.Closer, error) {
	state, err := s.State()
	if err != nil {
		return nil, nil, err
	}
	p, err := s.disk.Open(state.Active.Slot)
	if err != nil {
		return nil, nil, fmt.Errorf("open slot %s: %w", state.Active.Slot, err)
	}
	return &update.Base{ID: state.Active.RootHash, Size: p.Size(), Data: p}, p, nil
}

// CheckRoot reads the idle slot back from the disk and compares it, data and hash
// tree, with the root that v names. Errors: ErrRoot.
func (s *Slots) CheckRoot(ctx context.Context, v release.Verity) error {
	p, err := s.Idle()
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.Flush(); err != nil {
		return fmt.Errorf("flush the slot: %w", err)
	}
	return checkRoot(ctx, p, v)
}

func checkRoot(ctx context.Context, p Partition, v release.Verity) error {
	if v.Blocks >= uint64(p.Size()/release.BlockSize) {
		return fmt.Errorf("%w: %d blocks do not fit", ErrRoot, v.Blocks)
	}
	start, ok, err := v.Match(p)
	if err != nil || !ok {
		return errors.Join(fmt.Errorf("%w: its hash tree has another root hash", ErrRoot), err)
	}
	size := int64(v.Blocks) * release.BlockSize
	tree, got, err := release.HashTree(contextReader{ctx, io.NewSectionReader(p, 0, size)}, v.Salt)
	if err != nil {
		return err
	}
	stored := make([]byte, len(tree))
	if _, err := p.ReadAt(stored, int64(start)*release.BlockSize); err != nil {
		return fmt.Errorf("%w: its hash tree cannot be read: %w", ErrRoot, err)
	}
	if got.RootHash != v.RootHash || !bytes.Equal(stored, tree) {
		return fmt.Errorf("%w: a block of it differs from its hash tree", ErrRoot)
	}
	return nil
}

// Stage puts the kernel image of a version on the ESP under a name that the boot
// loader does not take, and returns when it was read back from the disk.
func (s *Slots) Stage(version string, image []byte) error {
	file := path.Join(release.ImageFolder, release.NewEntry(imageName, version).File()+stagedSuffix)
	err := s.disk.ESP(func(esp ESP) error {
		if _, running, err := s.read(esp); err != nil {
			return err
		} else if err := clear(esp, running.path); err != nil { // an earlier try's
			return err
		}
		if err := esp.Create(file, bytes.NewReader(image), int64(len(image))); err != nil {
			return fmt.Errorf("write the kernel image: %w", err)
		}
		return esp.Flush()
	})
	if err != nil {
		return err
	}
	return s.disk.ESP(func(esp ESP) error {
		if err := readBack(esp, file, image); err != nil {
			return fmt.Errorf("%w: %w", ErrImage, err)
		}
		return nil
	})
}

// readBack removes a file of the ESP that does not hold what was written.
func readBack(esp ESP, file string, content []byte) error {
	got, err := readAll(esp, file)
	if err == nil && !bytes.Equal(got, content) {
		err = errors.New("the ESP gives back something else than was written: is its disk failing?")
	}
	if err != nil {
		return errors.Join(err, esp.Remove(file), esp.Flush())
	}
	return nil
}

// imageName begins the name of every kernel image of ours.
const imageName = "oscine"

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
