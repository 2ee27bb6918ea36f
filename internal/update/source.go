package update

import (
	"context"
	"crypto/tls"
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

	// Choose returns the transfer that Fetch would take, and the peer that has it, ""
	// for none: the smallest that base allows, or the smallest that a peer has; base
	// may be nil.
	Choose(ctx context.Context, content *Content, base *Base) (chosen Transfer, peer string)

	// Fetch writes content into slot, by the transfer that Choose returns. Parts that slot already holds are neither
	// fetched nor written: to resume, call it again. When it returns nil, all
	// content.Size bytes of slot were read back and have the right SHA-256.
	// When a delta turns out not to fit base, it goes on with the full transfer.
	Fetch(ctx context.Context, content *Content, base *Base, slot Slot, report func(Progress)) error

	// FetchPin writes a pack or model to w, from offset, and reports an error
	// unless all of the file, what lies before offset included, has the pinned
	// SHA-256. To resume, pass the bytes that are there as have. After ErrPeer it can be
	// tried again, without those bytes.
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
	From    string // the peer that it comes from; empty for the source itself
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
	// BytesPerSecond bounds how fast is read from the source; 0 for no bound. Peers are
	// not bounded by it.
	BytesPerSecond int64
	// CA is a PEM bundle of further certificate authorities for https.
	CA []byte
	// Registry is how a source in a registry is reached.
	Registry artifact.Access

	// Peers are nodes, each HOST:PORT, that are asked for a file before the source is,
	// in this order, and for metadata where the source cannot be reached.
	Peers []string
	// PeerTLS is how peers are reached and verified; needed with Peers.
	PeerTLS *tls.Config
	// Cache keeps what was fetched, for peers; nil for none.
	Cache Cache
	// Trouble hears why a peer is not used: ErrBusy while it is waited for, ErrPeer, or
	// why it cannot be reached. It may be nil.
	Trouble func(peer string, err error)
	// Received hears how many bytes of a file came from a peer, "" for the source
	// itself. It may be nil.
	Received func(path, peer string, bytes int64)
}

// Cache keeps files of releases by their digests. It is safe for concurrent use.
type Cache interface {
	// Add returns the file of a digest. One that is not there is fetched: fetch is given
	// what an earlier try left of it, and writes what follows. ErrNotKept where the file
	// cannot be kept.
	Add(digest Digest, size int64, fetch func(have io.Reader, w io.Writer) error) (CachedFile, error)
	// Remove removes the file of a digest, which turned out to be damaged.
	Remove(digest Digest)
}

// CachedFile is a file of a [Cache].
type CachedFile interface {
	io.ReaderAt
	io.Closer
}
