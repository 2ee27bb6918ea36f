package model

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/object"
)

// Fetch stores a model file that a release of Oscine pins by name and digest. One
// that is there already is kept. Fetch is given what an earlier try left of the file,
// and writes what follows.
func (f *Files) Fetch(name, digest string, fetch func(have io.Reader, w io.Writer) error) error {
	stored, at := f.Received(digest, false)
	if !stored {
		if err := f.room(); err != nil {
			return err
		}
		err := f.fetch(digest, at, fetch)
		if at > 0 && errdefs.IsDataLoss(err) { // a power failure may have kept its last bytes from the disk
			err = f.fetch(digest, 0, fetch)
		}
		if err != nil {
			return err
		}
	}
	return f.record(digest, &Pulled{Digest: digest, Format: strings.ToLower(path.Ext(name))})
}

func (f *Files) fetch(digest string, at int64, fetch func(have io.Reader, w io.Writer) error) error {
	u := Upload{Digest: digest, Offset: at}
	in, err := f.begin(&u)
	if err != nil {
		return err
	}
	defer in.Close()
	defer f.end(&u, in.Name())
	if _, err := in.Seek(at, io.SeekStart); err != nil {
		return err
	}
	err = fetch(io.NewSectionReader(in, 0, at), in)
	if errdefs.IsDataLoss(err) {
		return errors.Join(err, os.Remove(in.Name()))
	}
	if err != nil {
		return err
	}
	return f.keep(in, digest, false)
}

// CheckSource refuses a source whose file has to be here and is not: an upload, or a
// file of the running release.
func (f *Files) CheckSource(source string) error {
	name, pinned := object.ReleaseModel(source)
	digest := f.Digest(source)
	switch {
	case pinned && digest == "":
		return fmt.Errorf("the running release brings no model file %s: upgrade to one that does (oscine upgrade --dry-run lists them), or upload it with oscine serve FILE", name)
	case (pinned || digestRE.MatchString(source)) && !f.Has(digest):
		return fmt.Errorf("this node has no model file %s: upload it with oscine serve FILE", strings.TrimSpace(name+" "+digest))
	}
	return nil
}
