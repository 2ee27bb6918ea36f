package delta

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update"
)

// windowSize lets a part reach back to the begin of its dictionary.
const windowSize = 32 << 20

// dictionaryID names the dictionary in a frame. Zero would mean none.
const dictionaryID = 1

// Make writes the transfer of content to the empty file out; old is nil for a
// full one. Path and Base of what it returns are left to the caller. Equal
// content gives equal bytes.
func Make(ctx context.Context, content, old *Content, out *os.File) (update.Transfer, error) {
	frames, err := os.CreateTemp(filepath.Dir(out.Name()), ".frames-")
	if err != nil {
		return update.Transfer{}, fmt.Errorf("make a transfer: %w", err)
	}
	defer os.Remove(frames.Name())
	defer frames.Close()
	t, err := makeTransfer(ctx, content, old, out, frames)
	if err != nil {
		return t, fmt.Errorf("make a transfer: %w", err)
	}
	return t, nil
}

func makeTransfer(ctx context.Context, content, old *Content, out, frames *os.File) (update.Transfer, error) {
	x, err := compress(ctx, content, old, frames)
	if err != nil {
		return update.Transfer{}, err
	}
	if content.verity != nil {
		p, err := treePart(content)
		if err != nil {
			return update.Transfer{}, err
		}
		x.Parts = append(x.Parts, p)
	}
	head, err := json.Marshal(x)
	if err != nil {
		return update.Transfer{}, err
	}
	if len(head) > update.MaxIndex {
		return update.Transfer{}, fmt.Errorf("the content has too many parts: the index is larger than %d bytes", update.MaxIndex)
	}
	size, err := frames.Seek(0, io.SeekCurrent)
	if err != nil {
		return update.Transfer{}, err
	}
	whole := sha256.New()
	to := io.MultiWriter(out, whole)
	if _, err := to.Write(head); err != nil {
		return update.Transfer{}, err
	}
	if _, err := io.Copy(to, io.NewSectionReader(frames, 0, size)); err != nil {
		return update.Transfer{}, err
	}
	return update.Transfer{
		Size: int64(len(head)) + size, SHA256: update.Digest(whole.Sum(nil)),
		IndexSize: int64(len(head)), IndexSHA256: sha256.Sum256(head),
	}, nil
}

// compress writes the frames one behind the other, made by all CPUs.
func compress(ctx context.Context, content, old *Content, frames io.Writer) (*index, error) {
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(runtime.NumCPU() + 1) // one writes
	parts := plan(content, old)
	x := &index{Format: indexFormat, Parts: make([]part, len(parts))}
	made := make([]chan []byte, len(parts))
	for i := range made {
		made[i] = make(chan []byte, 1)
	}
	work.Go(func() error {
		for i := range made {
			select {
			case frame := <-made[i]:
				if _, err := frames.Write(frame); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for i, p := range parts {
		work.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			frame, err := x.Parts[i].compress(content, old, p)
			made[i] <- frame
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return nil, err
	}
	return x, nil
}

// compress makes the frame of a part. Of a part with old content it tries both
// ways and keeps the smaller frame.
func (out *part) compress(content, old *Content, p planned) ([]byte, error) {
	data := make([]byte, p.size)
	if err := readAt(content.Data, data, p.offset); err != nil {
		return nil, err
	}
	var dictionary []byte
	if len(p.old) > 0 {
		var err error
		if dictionary, err = readPieces(nil, old.Data, p.old); err != nil {
			return nil, err
		}
	}
	frame, err := encode(data, dictionary)
	if err != nil {
		return nil, err
	}
	*out = part{Size: p.size, SHA256: sha256.Sum256(data), Old: p.old}
	if dictionary != nil {
		script, rest := subtractOld(data, dictionary)
		other, err := encode(append(script, rest...), dictionary)
		if err != nil {
			return nil, err
		}
		if len(script) > 0 && len(script) <= maxScript && len(other) < len(frame) {
			frame, out.Script = other, int64(len(script))
		}
	}
	out.Data, out.DataSHA256 = int64(len(frame)), sha256.Sum256(frame)
	return frame, nil
}

// encode is one zstd frame; dictionary may be nil.
func encode(data, dictionary []byte) ([]byte, error) {
	options := []zstd.EOption{
		zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(windowSize), zstd.WithSingleSegment(true),
	}
	if dictionary != nil {
		options = append(options, zstd.WithEncoderDictRaw(dictionaryID, dictionary))
	}
	encoder, err := zstd.NewWriter(nil, options...)
	if err != nil {
		return nil, err
	}
	return encoder.EncodeAll(data, nil), encoder.Close()
}

// treePart checks the content's hash tree, which the transfer leaves out.
func treePart(content *Content) (part, error) {
	start := content.treeStart()
	want, v, err := release.HashTree(io.NewSectionReader(content.Data, 0, start), content.verity.Salt)
	if err != nil {
		return part{}, err
	}
	got := make([]byte, content.Size-start)
	if err := readAt(content.Data, got, start); err != nil {
		return part{}, err
	}
	if v.RootHash != content.verity.RootHash || string(got) != string(want) {
		return part{}, errors.New("the root does not match its hash tree: it is damaged, build it again")
	}
	return part{Size: int64(len(got)), SHA256: sha256.Sum256(got), Salt: v.SaltText()}, nil
}

// readPieces reads pieces one behind the other, into buf when it is large enough.
func readPieces(buf []byte, old io.ReaderAt, pieces []piece) ([]byte, error) {
	total := int64(0)
	for _, p := range pieces {
		total += p[1]
	}
	if int64(cap(buf)) < total {
		buf = make([]byte, total)
	}
	buf = buf[:total]
	at := buf
	for _, p := range pieces {
		if err := readAt(old, at[:p[1]], p[0]); err != nil {
			return nil, fmt.Errorf("read the old content: %w", err)
		}
		at = at[p[1]:]
	}
	return buf, nil
}

// readAt fills buf: an end before it is an error, one right behind it is none.
func readAt(r io.ReaderAt, buf []byte, at int64) error {
	n, err := r.ReadAt(buf, at)
	if n == len(buf) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%d bytes at %d: %w", len(buf), at, err)
}
