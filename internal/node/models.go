package node

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/node/kind/model"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/core"
)

// UploadModel stores a model under the digest of its content, which it returns with
// the size in bytes. One that is there already is kept; one that no object refers
// to is removed after a while.
func (n *Node) UploadModel(ctx context.Context, r io.Reader, u model.Upload) (digest string, size int64, err error) {
	return n.files.Upload(ctx, r, u)
}

// ReceivedModel says whether a model is stored, as a file or folder, and otherwise
// how many bytes of its upload are here.
func (n *Node) ReceivedModel(digest string, folder bool) (stored bool, bytes int64) {
	return n.files.Received(digest, folder)
}

// PullModel fetches a model from a registry, or from a bucket that is reached as s3 says, with
// the credentials of the node's Secrets. Progress is told how many bytes of how many have come.
func (n *Node) PullModel(ctx context.Context, reference string, plainHTTP bool, s3 *object.S3, progress func(received, size int64)) (*model.Pulled, error) {
	if object.IsS3(reference) {
		m := &object.Model{Spec: object.ModelSpec{Source: reference, S3: s3}}
		m.SetDefaults()
		if err := n.config.Kinds.Check(m); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		access, err := n.secrets().bucket(s3)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
		}
		return n.files.PullBucket(ctx, reference, access, progress)
	}
	return n.files.Pull(ctx, reference, n.registries(plainHTTP), runtime.GOARCH, progress)
}

// SignModel keeps the signature of a stored model that is one file.
func (n *Node) SignModel(digest string, signature []byte) error {
	return n.files.Sign(digest, signature)
}

// ModelHeader returns the header of a stored language model, by which its memory is
// planned; nil for any other model.
func (n *Node) ModelHeader(digest string) []byte { return n.files.Header(digest) }

// referredFiles are the digests of model files that objects refer to. It is not
// known while one of the objects cannot be read.
func (n *Node) referredFiles() (referred map[string]bool, known bool) {
	referred = map[string]bool{}
	for _, state := range n.loop.Get(object.KindModel, "") {
		m, ok := state.Object.(*object.Model)
		if !ok {
			return nil, false
		}
		referred[m.SourceID()] = true
		if st, ok := state.Status.(*object.ModelStatus); ok {
			referred[st.Source], referred[st.Digest] = true, true // of the manifest before, which is served still
		}
	}
	for digest := range n.upgrades.PinnedModels() {
		referred[digest] = true
	}
	return referred, true
}

// checkEnsemble refuses an ensemble whose models are served and do not fit each
// other. Models that are applied with it may be others than those now.
func (n *Node) checkEnsemble(m *object.Model, applied []object.Object) error {
	known := true
	for _, obj := range applied {
		other, ok := obj.(*object.Model)
		if !ok {
			continue
		}
		name := other.ServedName()
		i := slices.IndexFunc(m.Spec.Ensemble.Steps, func(s object.EnsembleStep) bool {
			return s.ModelName == name && (s.ModelVersion == "" || s.ModelVersion == cmp.Or(other.Spec.Version, "1"))
		})
		if i >= 0 && other.Spec.Ensemble != nil {
			return fmt.Errorf("step %d (%s) is an ensemble itself: name its steps instead", i+1, name)
		}
		known = known && i < 0
	}
	if !known {
		return nil
	}
	return n.registry.CheckEnsemble(&core.Ensemble{Steps: m.Spec.Ensemble.Arranged(), Outputs: m.Spec.Ensemble.Outputs})
}

// ModelFile is a stored model file with the objects that refer to it.
type ModelFile struct {
	model.File
	Objects []string // as Kind/name
	Release string   // of Oscine that it comes with; empty for none
}

// ModelFiles lists the stored model files by digest.
func (n *Node) ModelFiles() ([]ModelFile, error) {
	files, err := n.files.List()
	if err != nil {
		return nil, err
	}
	list, pinned := make([]ModelFile, len(files)), n.upgrades.PinnedModels()
	for i, f := range files {
		list[i].File, list[i].Release = f, pinned[f.Digest]
		for _, obj := range n.loop.Objects() {
			if m, ok := obj.(*object.Model); ok && n.files.Digest(m.SourceID()) == f.Digest {
				list[i].Objects = append(list[i].Objects, m.Key().String())
			}
		}
	}
	return list, nil
}

// RemoveModelFile removes a model file that no object refers to, by its digest or at
// least the first 6 digits of that, with or without sha256:, and returns the whole digest.
func (n *Node) RemoveModelFile(digest string) (full string, err error) {
	files, err := n.ModelFiles()
	if err != nil {
		return "", err
	}
	const shortest = 6
	digits := strings.TrimPrefix(digest, "sha256:")
	if len(digits) < shortest {
		return "", fmt.Errorf("%w: %q is too short: give at least %d digits of the digest (see oscine model list)", ErrInvalid, digest, shortest)
	}
	var found []ModelFile
	for _, f := range files {
		if strings.HasPrefix(f.Digest, "sha256:"+digits) {
			found = append(found, f)
		}
	}
	switch {
	case len(found) == 0:
		return "", fmt.Errorf("model file %q: %w (see oscine model list)", digest, ErrNotFound)
	case len(found) > 1:
		return "", fmt.Errorf("%w: %d model files begin with %q: give more of the digest", ErrInvalid, len(found), digest)
	case len(found[0].Objects) > 0:
		return "", fmt.Errorf("%w: %s is of the file %s: delete that first", ErrConflict, found[0].Objects[0], found[0].Digest)
	}
	if version := found[0].Release; version != "" {
		return "", fmt.Errorf("%w: the file %s comes with the release %s, which is in a slot: it is removed some time after neither slot has such a release", ErrConflict, found[0].Digest, version)
	}
	return found[0].Digest, n.files.Remove(found[0].Digest)
}
