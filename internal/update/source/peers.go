package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"time"

	"oscine.dev/oscine/internal/update"
)

// PeerPath is where a node serves files of releases to its peers: a release folder that
// may lack some.
const PeerPath = "/releases/"

// How long peers are waited for. They are near, and there is always the source.
const (
	peerDial     = 3 * time.Second
	peerHeader   = 30 * time.Second // one that serves many others has them wait
	peerStall    = 20 * time.Second
	peerSlow     = time.Minute      // for leastBytes
	peerRest     = time.Minute      // in which one that failed is not asked
	peerLongRest = time.Hour        // in which one that was too slow is not asked
	busyPause    = 2 * time.Second  // before one that is busy is asked again
	busyPatience = 15 * time.Minute // for all files together
)

// peer is another node that may have what is wanted.
type peer struct {
	name string
	web  *web
	rest time.Time // until when it is not asked
	lied bool      // it is not asked again
	took bool      // bytes came from it since the last check of what came
}

// String is the peer's name, "" for the source itself.
func (p *peer) String() string {
	if p == nil {
		return ""
	}
	return p.name
}

func newPeers(o update.Options) (all []*peer) {
	for _, name := range o.Peers {
		transport := newTransport(peerDial, peerHeader)
		transport.Proxy, transport.TLSClientConfig = nil, o.PeerTLS
		base := &url.URL{Scheme: "https", Host: name, Path: PeerPath}
		all = append(all, &peer{name: name, web: &web{base: base, client: &http.Client{Transport: transport, CheckRedirect: stay}, stall: peerStall, slow: peerSlow}})
	}
	return all
}

// stay has a peer's redirect be its answer: it does not choose whom this node asks.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func (p *peer) asked() bool { return !p.lied && !time.Now().Before(p.rest) }

// restPeer leaves a peer alone for a while that could not be read.
func (s *source) restPeer(p *peer, err error) {
	p.rest = time.Now().Add(peerRest)
	if errors.Is(err, errSlow) {
		p.rest = time.Now().Add(peerLongRest)
	}
	s.trouble(p, err)
}

func (s *source) trouble(p *peer, err error) {
	if s.options.Trouble != nil {
		s.options.Trouble(p.name, err)
	}
}

// errNoPeer: no peer gives what was chosen because a peer has it.
var errNoPeer = errors.New("no peer gives the file, and the source has a smaller one")

// open opens a file at the first of the peers that has it, else at the source. A peer
// that downloads the file itself is waited for, so that it passes a thin link once.
func (s *source) open(ctx context.Context, path string, at int64) (io.ReadCloser, *peer, error) {
	for {
		var busy *peer
		for _, p := range s.peers {
			if !p.asked() {
				continue
			}
			body, err := p.web.open(ctx, path, at)
			switch {
			case err == nil:
				return body, p, nil
			case ctx.Err() != nil:
				return nil, nil, context.Cause(ctx)
			case errors.Is(err, update.ErrBusy):
				busy = p
			case !errors.Is(err, fs.ErrNotExist):
				s.restPeer(p, err)
			}
		}
		if busy == nil || s.waited >= busyPatience {
			break
		}
		s.trouble(busy, update.ErrBusy)
		select {
		case <-time.After(s.pause):
			s.waited += s.pause
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
	if at < s.near {
		return nil, nil, errNoPeer
	}
	body, err := s.at.open(ctx, path, at)
	return body, nil, err
}

// Choose implements [update.Source].
func (s *source) Choose(ctx context.Context, content *update.Content, base *update.Base) (update.Transfer, string) {
	for _, t := range content.Usable(base) {
		for _, p := range s.peers {
			if !p.asked() {
				continue
			}
			has, err := p.web.has(ctx, hashed(t.Path, t.SHA256))
			if err != nil && ctx.Err() == nil {
				s.restPeer(p, err)
			}
			if has {
				return t, p.name
			}
		}
	}
	return content.Best(base), ""
}

// has reports whether a peer has a file, or is about to.
func (w *web) has(ctx context.Context, path string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, peerHeader)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, w.base.JoinPath(path).String(), nil)
	if err != nil {
		return false, err
	}
	response, err := w.client.Do(request)
	if err != nil {
		return false, fmt.Errorf("%w: %w", update.ErrUnreachable, err)
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK || busy(response), nil
}

// blame finds the peers that something wrong came from, and reports whether it can be
// tried again without them. Which of several lied is not known: all are left out.
func (s *source) blame(err error) bool {
	wrong := errors.Is(err, update.ErrDamaged) || errors.Is(err, update.ErrTooLong)
	again := false
	for _, p := range s.peers {
		if wrong && p.took {
			p.lied, again = true, true
			s.trouble(p, fmt.Errorf("%w: %w", update.ErrPeer, err))
		}
		p.took = false
	}
	return again
}
