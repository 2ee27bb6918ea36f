package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"oscine.dev/oscine/internal/durable"
	"path/filepath"
)

// maxModelBytes bounds one model file.
const maxModelBytes = 64 << 30

// UploadModel stores a model file under the digest of its content, which it
// returns with the size in bytes. A file that is there already is kept.
func (n *Node) UploadModel(ctx context.Context, r io.Reader) (digest string, size int64, err error) {
	dir := filepath.Join(n.config.StateDir, "models")
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", 0, fmt.Errorf("make the model folder: %w", err)
	}
	tmp, err := os.CreateTemp(dir, ".upload-*")
	if err != nil {
		return "", 0, fmt.Errorf("store the model: %w", err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	hash := sha256.New()
	size, err = io.Copy(io.MultiWriter(tmp, hash), io.LimitReader(r, maxModelBytes+1))
	switch {
	case err != nil:
		return "", 0, fmt.Errorf("store the model: %w", err)
	case size > maxModelBytes:
		return "", 0, fmt.Errorf("%w: the model is larger than %d bytes", ErrInvalid, int64(maxModelBytes))
	case size == 0:
		return "", 0, fmt.Errorf("%w: the model file is empty", ErrInvalid)
	}
	// Workers read it under user ids of their own.
	if err := errors.Join(tmp.Chmod(0o444), tmp.Sync(), tmp.Close()); err != nil {
		return "", 0, fmt.Errorf("store the model: %w", err)
	}
	digest = "sha256:" + hex.EncodeToString(hash.Sum(nil))
	if err := durable.Rename(tmp.Name(), n.modelFile(digest)); err != nil {
		return "", 0, fmt.Errorf("store the model: %w", err)
	}
	return digest, size, ctx.Err()
}
