package node

import (
	"context"
	"io"

	"oscine.dev/oscine/internal/object"
)

// UploadModel stores a model file under the digest of its content, which it
// returns with the size in bytes. A file that is there already is kept; one that
// no object refers to is removed after a while.
func (n *Node) UploadModel(ctx context.Context, r io.Reader) (digest string, size int64, err error) {
	return n.files.Upload(ctx, r)
}

// referredFiles are the digests of model files that objects refer to. It is not
// known while one of the objects cannot be read.
func (n *Node) referredFiles() (referred map[string]bool, known bool) {
	referred = map[string]bool{}
	for _, state := range n.loop.Get(object.KindModel, "") {
		m, ok := state.Object.(*object.Model)
		if !ok {
			return nil, false
		}
		referred[m.Spec.Source] = true
	}
	return referred, true
}
