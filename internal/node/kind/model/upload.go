package model

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/disk"
	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/pattern"
	"oscine.dev/oscine/internal/serve/bundle"
)

// Upload says what the bytes of an upload are.
type Upload struct {
	// Digest is what they will have, sha256:…; "" where the client does not know.
	// An upload whose digest is known can go on after it was cut.
	Digest string
	// Offset is how many bytes the node has of it already; see Received.
	Offset int64
	Folder bool // they are the archive of a model's folder, by package bundle
}

var digestRE = pattern.New(`^sha256:[0-9a-f]{64}$`)

// Received says whether a model is stored as the file or folder of a digest, which
// then stays for a while; otherwise how many bytes of an upload that was cut are
// here.
func (f *Files) Received(digest string, folder bool) (stored bool, bytes int64) {
	if !digestRE.MatchString(digest) {
		return false, 0
	}
	if info, err := os.Stat(f.Path(digest)); err == nil && info.IsDir() == folder && f.Has(digest) {
		return true, 0
	}
	info, err := os.Stat(f.partial(digest))
	if err != nil {
		return false, 0
	}
	return false, info.Size()
}

func (f *Files) partial(digest string) string {
	return filepath.Join(f.dir, partial+digest[len("sha256:"):])
}

// receives reports whether an upload of the digest is under way.
func (f *Files) receives(digest string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.receiving[digest]
}

// Upload stores a model under the digest of the uploaded bytes, which it returns
// with their number. One that is there already is kept. The name is on disk when
// it returns. Where it fails and the digest was told, what has come stays for a
// while, for an upload that goes on from there.
func (f *Files) Upload(ctx context.Context, r io.Reader, u Upload) (digest string, size int64, err error) {
	if err := f.room(); err != nil {
		return "", 0, fmt.Errorf("store the model: %w", err)
	}
	in, err := f.begin(&u)
	if err != nil {
		return "", 0, err
	}
	defer in.Close()
	defer f.end(&u, in.Name())
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(in, 0, u.Offset)); err != nil {
		return "", 0, fmt.Errorf("store the model: %w", err)
	}
	size, err = f.receive(ctx, in, r, sum, &u)
	if err != nil {
		return "", 0, err
	}
	digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	if u.Digest != "" && digest != u.Digest {
		return "", 0, errors.Join(fmt.Errorf("%w: the model has the digest %s and should have %s: it changed while it was sent: send it again", reconcile.ErrInvalid, digest, u.Digest), os.Remove(in.Name()))
	}
	return digest, size, f.keep(in, digest, u.Folder)
}

// begin opens the file of an upload at the place where it goes on.
func (f *Files) begin(u *Upload) (*os.File, error) {
	if u.Digest == "" {
		if u.Offset != 0 {
			return nil, fmt.Errorf("%w: an upload can be resumed only if its digest is given", reconcile.ErrInvalid)
		}
		in, err := os.CreateTemp(f.dir, uploading+"*")
		if err != nil {
			return nil, fmt.Errorf("store the model: %w", err)
		}
		return in, nil
	}
	if !digestRE.MatchString(u.Digest) || u.Offset < 0 {
		return nil, fmt.Errorf("%w: an upload of the digest %.80q from byte %d on", reconcile.ErrInvalid, u.Digest, u.Offset)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.receiving[u.Digest] {
		return nil, fmt.Errorf("%w: the model %s is being sent already: wait for that, or try again when it has ended", errdefs.ErrUnavailable, u.Digest)
	}
	in, err := os.OpenFile(f.partial(u.Digest), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store the model: %w", err)
	}
	info, err := in.Stat()
	if err == nil && info.Size() < u.Offset {
		err = fmt.Errorf("%w: of model %s the node has %d bytes, but the upload begins at %d: send it again", reconcile.ErrInvalid, u.Digest, info.Size(), u.Offset)
	}
	if err == nil {
		err = in.Truncate(u.Offset)
	}
	if err != nil {
		if info != nil && info.Size() == 0 {
			err = errors.Join(err, os.Remove(in.Name()))
		}
		return nil, errors.Join(err, in.Close())
	}
	f.receiving[u.Digest] = true
	return in, nil
}

// end forgets an upload; one that nobody can go on with is removed.
func (f *Files) end(u *Upload, name string) {
	f.mu.Lock()
	delete(f.receiving, u.Digest)
	f.mu.Unlock()
	if info, err := os.Stat(name); u.Digest == "" || err == nil && info.Size() == 0 {
		os.Remove(name) // it has its own name by now, or is of no use
	}
}

// receive writes what comes, and returns how many bytes there are in all.
func (f *Files) receive(ctx context.Context, in *os.File, r io.Reader, sum hash.Hash, u *Upload) (int64, error) {
	if _, err := in.Seek(u.Offset, io.SeekStart); err != nil {
		return 0, fmt.Errorf("store the model: %w", err)
	}
	size, err := io.Copy(io.MultiWriter(in, sum), io.LimitReader(disk.Asking(r, f.room), maxBytes+1-u.Offset))
	size += u.Offset
	switch {
	case err != nil:
		return 0, fmt.Errorf("store the model: %w", err)
	case size > maxBytes:
		return 0, errors.Join(fmt.Errorf("%w: the model is larger than %d bytes", reconcile.ErrInvalid, int64(maxBytes)), in.Truncate(0))
	case size == 0:
		return 0, fmt.Errorf("%w: the model file is empty", reconcile.ErrInvalid)
	}
	return size, ctx.Err()
}

// keep gives what was uploaded its name, unpacked where it is a folder.
func (f *Files) keep(in *os.File, digest string, folder bool) error {
	from := in.Name()
	if folder {
		var err error
		if from, err = f.unpack(in); err != nil {
			return err
		}
		defer os.RemoveAll(from) // it has its own name by then
	} else if err := errors.Join(in.Chmod(0o444), in.Sync(), in.Close()); err != nil { // workers read it under user ids of their own
		return fmt.Errorf("store the model: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	// A folder takes no file's place, nor a file a folder's.
	if info, err := os.Stat(f.Path(digest)); err == nil && (folder || info.IsDir()) {
		if info.IsDir() == folder {
			return nil
		}
		if err := os.RemoveAll(f.Path(digest)); err != nil {
			return fmt.Errorf("store the model: %w", err)
		}
	}
	if err := durable.Rename(from, f.Path(digest)); err != nil {
		return fmt.Errorf("store the model: %w", err)
	}
	return nil
}

// unpack unpacks an archive into a new folder. The archive's blocks are given
// back while it is read: the model lies on the disk once.
func (f *Files) unpack(in *os.File) (dir string, err error) {
	defer os.Remove(in.Name())
	if dir, err = os.MkdirTemp(f.dir, uploading+"*"); err != nil {
		return "", fmt.Errorf("store the model: %w", err)
	}
	_, err = bundle.Unpack(disk.Asking(&consumed{f: in}, f.room), dir, maxBytes)
	if errors.Is(err, bundle.ErrArchive) {
		err = fmt.Errorf("%w: %w", reconcile.ErrInvalid, err)
	}
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
}

// consumed reads a file and frees what was read.
type consumed struct {
	f         *os.File
	at, freed int64
}

// freeEvery is how many bytes are freed at once.
const freeEvery = 64 << 20

func (c *consumed) Read(p []byte) (int, error) {
	n, err := c.f.ReadAt(p, c.at)
	c.at += int64(n)
	if c.at-c.freed >= freeEvery {
		// Where the file system cannot, the model takes its room twice for a while.
		_ = unix.Fallocate(int(c.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, c.freed, c.at-c.freed)
		c.freed = c.at
	}
	return n, err
}
