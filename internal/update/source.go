package update

import (
	"context"
	"io"
	"time"

	"oscine.dev/oscine/internal/artifact"
)

// Source is somewhere that releases come from: a folder, a stick, a web server
// or a registry. It is made by package source, which also checks trust: what
// comes out of a Source is signed, current and whole. It is not safe for
// concurrent use.
type Source interface {
	// Releases brings the metadata up to date, checks it against the trusted
	// root and lists the releases for an architecture and kernel flavour, newest
	// first. Errors wrap the sentinels of this package.
	Releases(ctx context.Context, arch, flavour string) ([]*Manifest, error)

	// Fetch writes content into slot, by the smallest transfer that base
	// allows; base may be nil. Parts that slot already holds are neither
	// fetched nor written: to resume, call it again. When it returns nil, all
	// content.Size bytes of slot were read back and have the right SHA-256.
	// When a delta turns out not to fit base, it goes on with the full transfer.
	Fetch(ctx context.Context, content *Content, base *Base, slot Slot, report func(Progress)) error

	// FetchPin writes a pack or model to w, from offset, and reports an error
	// unless all of the file, what lies before offset included, has the pinned
	// SHA-256. To resume, pass the bytes that are there as have.
	FetchPin(ctx context.Context, pin Pin, have io.Reader, w io.Writer, report func(Progress)) error

	Close() error
}

// Slot takes the bytes of a [Content]: the block device of the idle slot or a
// file. Only bytes before content.Size are touched.
type Slot interface {
	io.ReaderAt
	io.WriterAt
}

// Progress says how far a fetch is.
type Progress struct {
	Path    string // of the transfer, as in [Transfer.Path]
	Delta   bool   // the transfer is a delta
	Done    int64  // bytes of content that are in place
	Size    int64  // bytes of content in total
	Fetched int64  // bytes that came from the source so far
	ToFetch int64  // bytes that come from the source in total
}

// Options say what a source is trusted for and how it is read.
type Options struct {
	// Root is the trusted TUF root metadata to begin with: from the image, or
	// from the node's configuration.
	Root []byte
	// State is a folder, of this source alone, where the newest metadata that
	// was seen is kept: by it, rollbacks are found. It is made if it is not there.
	State string
	// NotBefore is a time that is surely past, such as when the running
	// release was built: a clock that is behind it is taken to be wrong, and this
	// time is used in its place.
	NotBefore time.Time
	// Now is the clock; [time.Now] if nil.
	Now func() time.Time
	// BytesPerSecond bounds how fast is read from the source; 0 for no bound.
	BytesPerSecond int64
	// CA is a PEM bundle of further certificate authorities for https.
	CA []byte
	// Registry is how a source in a registry is reached.
	Registry artifact.Access
}
