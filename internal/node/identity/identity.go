package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pki"
)

// Reasons of what Identity.Noted is called with.
const (
	ReasonRenewed  = "NodeCertificateRenewed"
	ReasonExpiring = "NodeCertificateExpiring"
	ReasonExpired  = "NodeCertificateExpired"
)

// ErrNoRequest is returned by Install for a certificate for which the node has no key
// any more.
var ErrNoRequest = errdefs.ErrFailedPrecondition.WithMessage("the certificate is for another key than the node last asked with: someone else renews it at the same time, or the daemon has restarted: renew it again")

// HowToRenew is what the holder of the authority does, as a command.
const HowToRenew = "renew it with oscine attest NODE --renew, where ca.key is"

// Identity is the node's certificate with its key: that of the Machine, or the one
// that took its place. It is safe for concurrent use.
type Identity struct {
	// Noted is called with each change, in words; nil for nothing. Set it before the
	// identity is in use.
	Noted func(warning bool, reason, message string)

	path      string
	machine   string // fingerprint of the Machine's certificate
	authority *x509.CertPool
	current   atomic.Pointer[tls.Certificate]

	mu      sync.Mutex
	pending []byte // key of the last request, PEM
	told    string // what Watch has noted of which certificate
}

// renewed is the file: what takes the place of the Machine's certificate.
type renewed struct {
	Machine     string `json:"machine"` // fingerprint of the certificate whose place it takes
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
}

// Open returns the identity of a node whose Machine has this identity. The renewed
// certificate in the file at path counts for just that Machine; one that cannot
// be used is logged, and the Machine's counts.
func Open(path string, api object.MachineAPI, log *slog.Logger) (*Identity, error) {
	pair, err := tls.X509KeyPair([]byte(api.Certificate), []byte(api.Key))
	if err != nil {
		return nil, fmt.Errorf("node certificate: %w", err)
	}
	authority, err := pki.Pool([]byte(api.CA))
	if err != nil {
		return nil, fmt.Errorf("spec.api.ca: %w", err)
	}
	i := &Identity{path: path, machine: pki.Fingerprint(pair.Leaf.Raw), authority: authority}
	i.current.Store(&pair)
	switch later, err := i.read(pair.Leaf); {
	case err == nil:
		i.current.Store(later)
	case !errors.Is(err, fs.ErrNotExist):
		log.Error("the node's renewed certificate cannot be used, and that of its Machine counts", "error", err)
	}
	return i, nil
}

// errOther says that the node was configured again.
var errOther = fmt.Errorf("%w for this Machine", fs.ErrNotExist)

func (i *Identity) read(machine *x509.Certificate) (*tls.Certificate, error) {
	raw, err := os.ReadFile(i.path)
	if err != nil {
		return nil, err
	}
	var r renewed
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("read %s: %w", i.path, err)
	}
	if r.Machine != i.machine {
		return nil, errOther
	}
	pair, err := pki.CheckNode(i.authority, machine, []byte(r.Certificate), []byte(r.Key))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", i.path, err)
	}
	return &pair, nil
}

// Authority is the cluster's, which signs for nodes and clients.
func (i *Identity) Authority() *x509.CertPool { return i.authority }

// Certificate is what a server shows; it implements tls.Config.GetCertificate.
func (i *Identity) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return i.current.Load(), nil
}

// Pair is the certificate that counts, with its key.
func (i *Identity) Pair() *tls.Certificate { return i.current.Load() }

// Leaf is the certificate that counts.
func (i *Identity) Leaf() *x509.Certificate { return i.current.Load().Leaf }

// Request makes another key, and returns a request for a certificate for it, PKCS
// #10 in PEM. The key is kept in memory until Install, or the next Request.
func (i *Identity) Request() ([]byte, error) {
	key, err := pki.NewKey()
	if err != nil {
		return nil, err
	}
	request, err := pki.NewRequest(key)
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.pending = key
	return request, nil
}

// Install makes a certificate, PEM, for the key of the last Request the one that
// counts, on disk and for all connections from now on; by is who brings it. It returns
// ErrNoRequest, or errdefs.ErrInvalidArgument for a certificate that is not for this
// node.
func (i *Identity) Install(certificate []byte, by string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.pending == nil {
		return ErrNoRequest
	}
	if _, err := tls.X509KeyPair(certificate, i.pending); err != nil {
		return fmt.Errorf("%w (%v)", ErrNoRequest, err)
	}
	pair, err := pki.CheckNode(i.authority, i.Leaf(), certificate, i.pending)
	if err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	raw, err := json.Marshal(renewed{i.machine, string(certificate), string(i.pending)})
	if err != nil {
		return err
	}
	if err := durable.WriteFile(i.path, raw, 0o600); err != nil {
		return fmt.Errorf("store the node's certificate: %w", err)
	}
	i.current.Store(&pair)
	i.pending = nil
	i.note(false, ReasonRenewed, fmt.Sprintf("%q renewed the node's certificate, until %s, serial %s", by, pair.Leaf.NotAfter.Format(time.RFC3339), pki.Serial(pair.Leaf)))
	return nil
}

func (i *Identity) note(warning bool, reason, message string) {
	if i.Noted != nil {
		i.Noted(warning, reason, message)
	}
}

// State says at a time what is wrong with the certificate; reason is empty while
// nothing is.
func (i *Identity) State(now time.Time) (reason, message string) {
	leaf := i.Leaf()
	until := leaf.NotAfter.Format(time.RFC3339)
	switch {
	case now.After(leaf.NotAfter):
		return ReasonExpired, fmt.Sprintf("the node's certificate expired at %s, and clients refuse it", until)
	case now.After(pki.RenewFrom(leaf)):
		return ReasonExpiring, fmt.Sprintf("the node's certificate expires at %s, and clients refuse it then", until)
	}
	return "", "valid until " + until
}

// watchEvery is how often Watch looks: the clock may jump meanwhile.
const watchEvery = time.Minute

// Watch notes once that a certificate is near its end, and once that it has
// expired, until ctx ends.
func (i *Identity) Watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		i.look(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (i *Identity) look(now time.Time) {
	reason, message := i.State(now)
	about := reason + pki.Serial(i.Leaf())
	i.mu.Lock()
	fresh := reason != "" && i.told != about
	i.told = about
	i.mu.Unlock()
	if fresh {
		i.note(true, reason, message+": "+HowToRenew)
	}
}
