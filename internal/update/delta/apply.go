package delta

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update"
)

// ErrBase is returned by [Apply] when the old content is not what the delta was
// made from: the full transfer is to be used.
var ErrBase = errors.New("the delta was made from other old content")

// Job is one transfer to apply.
type Job struct {
	Content  *update.Content
	Transfer update.Transfer
	Base     *update.Base // nil for a full transfer
	Slot     update.Slot  // takes the content

	// Open begins to read the transfer file at an offset. Apply checks what it
	// reads and reads no more than the transfer's size.
	Open func(ctx context.Context, offset int64) (io.ReadCloser, error)
	// Report is called after each part; it may be nil.
	Report func(update.Progress)
}

// Apply writes the content into the slot, leaving out the parts that are there,
// and reads it all back. Errors wrap update.ErrDamaged for a transfer that is
// not what was signed, update.ErrTooLong, [ErrBase], or what Open and the slot
// return. After an error the slot holds a part of the content, and another
// Apply goes on from there.
func Apply(ctx context.Context, job Job) error {
	a := &applier{Job: job}
	defer a.close()
	a.progress = update.Progress{Path: job.Transfer.Path, Delta: job.Base != nil, Size: job.Content.Size}
	x, err := a.index(ctx)
	if err != nil {
		return err
	}
	missing, err := a.missing(ctx, x)
	if err != nil {
		return err
	}
	offset, data := int64(0), job.Transfer.IndexSize
	for i := range x.Parts {
		p := &x.Parts[i]
		if missing[i] {
			if err := a.part(ctx, p, offset, data); err != nil {
				return fmt.Errorf("part %d of %d: %w", i+1, len(x.Parts), err)
			}
			a.progress.Done += p.Size
			a.tell()
		}
		offset, data = offset+p.Size, data+p.Data
	}
	return a.verify(ctx)
}

type applier struct {
	Job
	progress update.Progress

	stream   io.ReadCloser // of the transfer file
	streamAt int64

	made, frame, old []byte // buffers of parts
	content          []byte // what a part made, in made
}

func (a *applier) tell() {
	if a.Report != nil {
		a.Report(a.progress)
	}
}

func (a *applier) close() {
	if a.stream != nil {
		a.stream.Close()
		a.stream = nil
	}
}

// read fills buf with bytes of the transfer file, whose digest is known.
func (a *applier) read(ctx context.Context, buf []byte, at int64, want update.Digest) error {
	if a.stream == nil || a.streamAt != at {
		a.close()
		stream, err := a.Open(ctx, at)
		if err != nil {
			return err
		}
		a.stream, a.streamAt = stream, at
	}
	n, err := io.ReadFull(a.stream, buf)
	a.streamAt += int64(n)
	a.progress.Fetched += int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %s ends after %d bytes", update.ErrDamaged, a.Transfer.Path, a.streamAt)
	}
	if err != nil {
		return err
	}
	if got := sha256.Sum256(buf); got != want {
		return fmt.Errorf("%w: %s: %d bytes at %d have another digest than was signed", update.ErrDamaged, a.Transfer.Path, len(buf), at)
	}
	return nil
}

func (a *applier) index(ctx context.Context) (*index, error) {
	t := a.Transfer
	if t.IndexSize <= 0 || t.IndexSize > min(t.Size, update.MaxIndex) {
		return nil, fmt.Errorf("%w: %s has an index of %d bytes", update.ErrManifest, t.Path, t.IndexSize)
	}
	text := make([]byte, t.IndexSize)
	if err := a.read(ctx, text, 0, t.IndexSHA256); err != nil {
		return nil, err
	}
	x, err := parseIndex(text, a.Content.Size, t.Size-t.IndexSize)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", update.ErrManifest, t.Path, err)
	}
	return x, nil
}

// missing finds the parts that the slot does not hold yet.
func (a *applier) missing(ctx context.Context, x *index) ([]bool, error) {
	missing := make([]bool, len(x.Parts))
	offset := int64(0)
	for i, p := range x.Parts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		sum := sha256.New()
		n, err := io.Copy(sum, io.NewSectionReader(a.Slot, offset, p.Size))
		missing[i] = err != nil || n != p.Size || update.Digest(sum.Sum(nil)) != p.SHA256
		if missing[i] {
			a.progress.ToFetch += p.Data
		} else {
			a.progress.Done += p.Size
		}
		offset += p.Size
	}
	a.progress.ToFetch += a.progress.Fetched
	a.tell()
	return missing, nil
}

// part makes one part and writes it.
func (a *applier) part(ctx context.Context, p *part, offset, data int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.Salt != "" {
		return a.tree(p, offset)
	}
	a.frame = grow(a.frame, p.Data)
	if err := a.read(ctx, a.frame, data, p.DataSHA256); err != nil {
		return err
	}
	if err := a.decode(p); err != nil {
		return err
	}
	if got := sha256.Sum256(a.content); got != p.SHA256 {
		return a.wrong(p, errors.New("it makes something else than was signed"))
	}
	return a.write(a.content, offset)
}

func (a *applier) decode(p *part) error {
	options := []zstd.DOption{
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(uint64(p.Size + p.Script)), zstd.WithDecodeAllCapLimit(true),
	}
	if len(p.Old) > 0 {
		if a.Base == nil {
			return fmt.Errorf("%w: %s is a delta and there is no old content", ErrBase, a.Transfer.Path)
		}
		var err error
		if a.old, err = readPieces(a.old, a.Base.Data, p.Old); err != nil {
			return fmt.Errorf("%w: %w", ErrBase, err)
		}
		options = append(options, zstd.WithDecoderDictRaw(dictionaryID, a.old))
	}
	decoder, err := zstd.NewReader(nil, options...)
	if err != nil {
		return err
	}
	defer decoder.Close()
	whole := p.Size + p.Script
	a.made = grow(a.made, whole)
	made, err := decoder.DecodeAll(a.frame, a.made[:0:whole])
	if err == nil && int64(len(made)) != whole {
		err = fmt.Errorf("the frame holds %d bytes of %d", len(made), whole)
	}
	if err == nil {
		err = addOld(made[p.Script:], made[:p.Script], a.old)
	}
	if err != nil {
		return a.wrong(p, err)
	}
	a.content = made[p.Script:]
	return nil
}

// wrong blames what a bad result came from: the frame's digest was right.
func (a *applier) wrong(p *part, err error) error {
	if len(p.Old) > 0 {
		return fmt.Errorf("%w: %s: %w", ErrBase, a.Transfer.Path, err)
	}
	return fmt.Errorf("%w: %s: %w", update.ErrDamaged, a.Transfer.Path, err)
}

// tree computes the hash tree of what lies before it.
func (a *applier) tree(p *part, offset int64) error {
	salt, err := release.ParseSalt(p.Salt)
	if err != nil {
		return err
	}
	tree, _, err := release.HashTree(io.NewSectionReader(a.Slot, 0, offset), salt)
	if err != nil {
		return fmt.Errorf("read the slot back: %w", err)
	}
	if int64(len(tree)) != p.Size || sha256.Sum256(tree) != p.SHA256 {
		return fmt.Errorf("%w: the hash tree of the root is another one than was signed", update.ErrDamaged)
	}
	return a.write(tree, offset)
}

func (a *applier) write(data []byte, offset int64) error {
	if _, err := a.Slot.WriteAt(data, offset); err != nil {
		return fmt.Errorf("write the slot: %w", err)
	}
	return nil
}

// verify reads all content back from the slot.
func (a *applier) verify(ctx context.Context) error {
	sum := sha256.New()
	n, err := io.Copy(sum, contextReader{ctx, io.NewSectionReader(a.Slot, 0, a.Content.Size)})
	if err != nil {
		return fmt.Errorf("read the slot back: %w", err)
	}
	if n != a.Content.Size || update.Digest(sum.Sum(nil)) != a.Content.SHA256 {
		return fmt.Errorf("%w: the slot does not hold what was written to it", update.ErrDamaged)
	}
	return nil
}

// contextReader ends when its context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// grow returns n bytes, of buf where they fit.
func grow(buf []byte, n int64) []byte {
	if int64(cap(buf)) < n {
		return make([]byte, n)
	}
	return buf[:n]
}
