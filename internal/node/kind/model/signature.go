package model

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/bucket"
	"oscine.dev/oscine/internal/signature"
)

// signed begins the name of what is known of the signatures of a model, with its digest.
const signed = ".signature-"

// signatures are those of a stored model that are not among its files.
type signatures struct {
	File     []byte               `json:"file,omitempty"` // of OpenSSF model signing
	Attached []signature.Attached `json:"attached,omitempty"`
}

func signedName(digest string) string { return signed + strings.TrimPrefix(digest, "sha256:") }

// Sign keeps a signature of OpenSSF model signing for a stored file.
func (f *Files) Sign(digest string, raw []byte) error {
	if len(raw) > signature.MaxFileBytes || !json.Valid(raw) {
		return fmt.Errorf("%w: a signature is a Sigstore bundle, JSON of at most %d bytes", reconcile.ErrInvalid, signature.MaxFileBytes)
	}
	if !digestRE.MatchString(digest) || !f.Has(digest) {
		return fmt.Errorf("model file %.100q: %w: send it first", digest, errdefs.ErrNotFound)
	}
	s := f.signatures(digest)
	s.File = raw
	return f.keepSignatures(digest, s)
}

// signatures returns what is kept; what cannot be read counts as none.
func (f *Files) signatures(digest string) (s signatures) {
	file, err := os.Open(filepath.Join(f.dir, signedName(digest)))
	if err != nil {
		return s
	}
	defer file.Close()
	raw, err := bounded.ReadAll(file, 64<<20)
	if err != nil || json.Unmarshal(raw, &s) != nil {
		return signatures{}
	}
	return s
}

func (f *Files) keepSignatures(digest string, s signatures) error {
	raw, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(f.dir, signedName(digest)), raw, 0o600)
}

// signer returns who among the keys signed a stored model. What nobody did is
// signature.ErrUntrusted.
func (f *Files) signer(keys *signature.Keys, digest string, s signatures) (string, error) {
	path := f.Path(digest)
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if len(s.Attached) > 0 {
		return keys.Artifact(digest, s.Attached)
	}
	if !info.IsDir() {
		if len(s.File) == 0 {
			return "", fmt.Errorf("%w: it has no signature: sign it with model_signing, and keep the signature beside it, as FILE%s, or in a registry with cosign sign --key", signature.ErrUntrusted, signature.Suffix)
		}
		return keys.File(path, s.File)
	}
	raw, err := os.Open(filepath.Join(path, signature.FileName))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: it has no signature: sign it with model_signing, and keep the signature in it, as %s, or in a registry with cosign sign --key", signature.ErrUntrusted, signature.FileName)
	}
	if err != nil {
		return "", err
	}
	defer raw.Close()
	text, err := bounded.ReadAll(raw, signature.MaxBytes)
	if err != nil {
		return "", fmt.Errorf("%w: its signature: %w", signature.ErrUntrusted, err)
	}
	files := map[string]string{}
	err = filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(path, file)
		files[filepath.ToSlash(name)] = file
		return err
	})
	if err != nil {
		return "", err
	}
	return keys.Folder(files, text)
}

// trusted verifies that a model is signed as this node and its manifest want, and returns by whom; ""
// where nobody has to.
func (c *controller) trusted(ctx context.Context, m *object.Model, digest string) (by string, err error) {
	if _, ok := object.ReleaseModel(m.Spec.Source); ok {
		return "", nil // the release is signed, and pins it
	}
	if c.o.SignedBy != nil {
		if by, err = c.signer(ctx, m, digest, c.o.SignedBy); err != nil {
			return "", fmt.Errorf("%w (the Machine's spec.models.signedBy)", err)
		}
	}
	if len(m.Spec.SignedBy) > 0 {
		keys, err := object.Signers(c.o.TrustedRoot, m.Spec.SignedBy)
		if err != nil {
			return "", err
		}
		if by, err = c.signer(ctx, m, digest, keys); err != nil {
			return "", fmt.Errorf("%w (spec.signedBy)", err)
		}
	}
	return by, nil
}

// signer is Files.signer, after the model's source was asked for signatures that are not here.
func (c *controller) signer(ctx context.Context, m *object.Model, digest string, keys *signature.Keys) (string, error) {
	s := c.o.Files.signatures(digest)
	by, err := c.o.Files.signer(keys, digest, s)
	if err == nil || !errors.Is(err, signature.ErrUntrusted) {
		return by, err
	}
	found, e := c.askForSignatures(ctx, m, digest, &s)
	if found {
		if by, err = c.o.Files.signer(keys, digest, s); err == nil {
			return by, c.o.Files.keepSignatures(digest, s)
		}
	}
	if e != nil {
		return "", fmt.Errorf("%w; a signature beside it cannot be read: %w", err, e)
	}
	return "", err
}

// askForSignatures reads the signatures beside the model's source. With an error there may
// be some, too: others cannot be read.
func (c *controller) askForSignatures(ctx context.Context, m *object.Model, digest string, s *signatures) (found bool, err error) {
	if in, ok := object.ParseS3(m.Spec.Source); ok {
		if info, err := os.Stat(c.o.Files.Path(digest)); err != nil || info.IsDir() {
			return false, err // it is in the folder
		}
		access, err := c.o.Bucket(m.Spec.S3)
		if err != nil {
			return false, err
		}
		s.File, err = bucket.Signature(ctx, in, access)
		return len(s.File) > 0, err
	}
	if !strings.HasPrefix(m.Spec.Source, "oci://") {
		return false, nil
	}
	r, err := artifact.Parse(m.Spec.Source)
	if err != nil {
		return false, err
	}
	store, err := artifact.Open(ctx, r, c.o.Registries)
	if err != nil {
		return false, err
	}
	s.Attached, err = store.Signatures(ctx, digest)
	return len(s.Attached) > 0, err
}
