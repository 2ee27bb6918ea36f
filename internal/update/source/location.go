package source

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/update"
)

// location is where files are read from.
type location interface {
	// open reads a file from an offset. Errors: fs.ErrNotExist for a file that is
	// not there, update.ErrUnreachable for what may work later.
	open(ctx context.Context, path string, offset int64) (io.ReadCloser, error)
	close()
}

func locate(where string, o update.Options) (location, error) {
	u, err := url.Parse(where)
	if err == nil && (u.Scheme == "http" || u.Scheme == "https") {
		return newWeb(u, o)
	}
	if err == nil && u.Scheme == "oci" {
		return newRegistry(context.Background(), where, o)
	}
	if err == nil && u.Scheme == "file" {
		where = u.Path
	}
	root, err := os.OpenRoot(where)
	if err != nil {
		return nil, fmt.Errorf("%w: %w: give a folder, the address of a web server, or oci://HOST/REPOSITORY:TAG", update.ErrUnreachable, err)
	}
	return folder{root}, nil
}

// folder is a release folder on a disk of this machine. Links do not lead out
// of it.
type folder struct{ root *os.Root }

func (f folder) close() { f.root.Close() }

func (f folder) open(_ context.Context, path string, offset int64) (io.ReadCloser, error) {
	file, err := f.root.OpenFile(filepath.FromSlash(path), os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would have it wait
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		var info fs.FileInfo
		if info, err = file.Stat(); err == nil && !info.Mode().IsRegular() {
			err = errors.New("it is not a file")
		}
		if err == nil {
			_, err = file.Seek(offset, io.SeekStart)
		}
		if err != nil {
			file.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", update.ErrUnreachable, path, err)
	}
	return file, nil
}

// Times after which a web server counts as unreachable.
const (
	dialTime   = 15 * time.Second
	headerTime = 30 * time.Second
	stallTime  = 60 * time.Second // without a byte
)

// leastBytes must come while a server with a bound on slowness is waited for.
const leastBytes = 256 << 10

// web is a web server that holds a release folder.
type web struct {
	base   *url.URL
	client *http.Client
	stall  time.Duration
	slow   time.Duration // of waiting in which leastBytes must come; 0 for no such bound
}

func newTransport(dial, header time.Duration) *http.Transport {
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: dial}).DialContext,
		TLSHandshakeTimeout: dial, ResponseHeaderTimeout: header, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute,
		DisableCompression: true, // digests are of the files as they are
	}
}

func newWeb(base *url.URL, o update.Options) (*web, error) {
	transport := newTransport(dialTime, headerTime)
	if len(o.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(o.CA) {
			return nil, errors.New("the certificate authorities of the source are no PEM certificates")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &web{base: base, client: &http.Client{Transport: transport}, stall: stallTime}, nil
}

func (w *web) close() { w.client.CloseIdleConnections() }

func (w *web) open(ctx context.Context, path string, offset int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.base.JoinPath(path).String(), nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	if offset > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	response, err := w.client.Do(request)
	if err != nil {
		err = unreachable(ctx, path, err)
		cancel(nil)
		return nil, err
	}
	body := &body{ReadCloser: response.Body, ctx: ctx, cancel: cancel, path: path, stall: w.stall, slow: w.slow}
	body.timer = time.AfterFunc(w.stall, func() { cancel(errStalled) })
	switch {
	case response.StatusCode == http.StatusPartialContent && offset > 0:
		return body, nil
	case response.StatusCode == http.StatusOK: // the server may not know ranges
		_, err = io.CopyN(io.Discard, body, offset)
	case response.StatusCode == http.StatusNotFound, response.StatusCode == http.StatusForbidden, response.StatusCode == http.StatusGone:
		err = fmt.Errorf("%s: the server says %s: %w", path, response.Status, fs.ErrNotExist)
	case response.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		err = fmt.Errorf("%w: %s ends before byte %d", update.ErrDamaged, path, offset)
	case busy(response):
		err = fmt.Errorf("%w: %w: %s: the server says %s", update.ErrUnreachable, update.ErrBusy, path, response.Status)
	default:
		err = fmt.Errorf("%w: %s: the server says %s", update.ErrUnreachable, path, response.Status)
	}
	if err != nil {
		body.Close()
		return nil, err
	}
	return body, nil
}

// busy reports whether a server says to come again later.
func busy(r *http.Response) bool {
	return r.StatusCode == http.StatusServiceUnavailable || r.StatusCode == http.StatusTooManyRequests
}

var (
	errStalled = errors.New("no byte came for too long")
	errSlow    = fmt.Errorf("%w: it sends less than %d KiB in %v", update.ErrUnreachable, leastBytes>>10, peerSlow)
)

// unreachable keeps apart whether the caller gave up or the server failed.
func unreachable(ctx context.Context, path string, err error) error {
	cause := context.Cause(ctx)
	if cause != nil && !errors.Is(cause, errStalled) {
		return cause
	}
	if cause != nil {
		err = cause
	}
	return fmt.Errorf("%w: %s: %w", update.ErrUnreachable, path, err)
}

// body is an answer that must not stall, nor drip.
type body struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
	path   string

	slow   time.Duration // as in web
	waited time.Duration // in Read, so that a slow reader does not count
	came   int           // bytes meanwhile
}

func (b *body) Read(p []byte) (int, error) {
	if b.slow > 0 && b.waited >= b.slow {
		return 0, fmt.Errorf("%s: %w", b.path, errSlow)
	}
	began := time.Now()
	n, err := b.ReadCloser.Read(p)
	b.timer.Reset(b.stall)
	b.waited += time.Since(began)
	if b.came += n; b.came >= leastBytes {
		b.waited, b.came = 0, 0
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = unreachable(b.ctx, b.path, err)
	}
	return n, err
}

func (b *body) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
