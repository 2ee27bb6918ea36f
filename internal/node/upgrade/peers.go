package upgrade

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/share"
	"oscine.dev/oscine/internal/update/source"
)

// trusted are the options of a source by which its metadata is kept.
func (m *Manager) trusted() update.Options {
	root := m.Root
	if m.Machine.Root != "" {
		root = []byte(m.Machine.Root)
	}
	return update.Options{Root: root, State: filepath.Join(m.Dir, "trust")}
}

// Metadata returns the metadata that was believed last, for peers.
func (m *Manager) Metadata(name string) ([]byte, error) {
	return source.Metadata(m.trusted(), name)
}

// OpenPinned opens a pack or model file that a verified release pins, for peers, or
// returns fs.ErrNotExist.
func (m *Manager) OpenPinned(d update.Digest) (*os.File, error) {
	digest := "sha256:" + d.String()
	if _, ok := m.PinsPack(digest); ok {
		return m.Stores.OpenPack(digest)
	}
	if _, ok := m.PinnedModels()[digest]; ok {
		return m.Stores.OpenModel(digest)
	}
	return nil, fs.ErrNotExist
}

// fetching has peers wait for a file while it comes to one of the stores.
func (m *Manager) fetching(d update.Digest, w io.Writer) io.WriteCloser {
	if m.Cache == nil {
		return nopCloser{w}
	}
	return m.Cache.Fetching(d, w)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// trouble hears why a peer is not used.
func (m *Manager) trouble(peer string, err error) {
	switch {
	case errors.Is(err, share.ErrSelf):
	case errors.Is(err, update.ErrPeer):
		m.Log.Warn("a peer is not asked again for this upgrade", "peer", peer, "error", err)
		m.Host.Note("PeerRefused", fmt.Sprintf("%s: %v: the file is fetched from elsewhere", peer, err), true)
	case errors.Is(err, update.ErrBusy):
		m.mu.Lock()
		defer m.mu.Unlock()
		if u := m.state.Current; u != nil && u.Stage == Downloading {
			u.Message, m.waiting = "waiting for the peer "+peer+", which is downloading the file or sending to others", true
		}
	default:
		m.Log.Info("a peer is not asked for a while", "peer", peer, "error", err)
	}
}

// receive notes how much of a file came from a peer, "" for the source.
func (m *Manager) receive(file, peer string, bytes int64) {
	name := fileName(file)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.received[peer != ""] += bytes
	u := m.state.Current
	if u == nil || u.Stage != Downloading {
		return // the pack of the running release
	}
	i := slices.IndexFunc(u.Files, func(f Received) bool { return f.Name == name && f.Peer == peer })
	if i >= 0 {
		u.Files[i].Bytes += bytes
	} else if len(u.Files) < maxFiles {
		u.Files = append(u.Files, Received{name, peer, bytes})
	}
}

// fileName is how people know a file of a release: without folder and digest.
func fileName(file string) string {
	name := path.Base(file)
	if len(name) > 2*len(update.Digest{}) {
		return name[2*len(update.Digest{})+1:]
	}
	return name
}

// Received is how many bytes of releases came from peers and from sources since the
// daemon started.
func (m *Manager) Received() (peers, sources int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.received[true], m.received[false]
}
