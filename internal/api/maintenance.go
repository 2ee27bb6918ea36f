package api

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/api/oscinepb/oscinepbconnect"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pki"
	"oscine.dev/oscine/internal/release"
)

// Maintenance answers for a node without a configuration that it can read: the
// Maintenance service and nothing else.
type Maintenance struct {
	// Key is the node's own, as PEM. It never leaves the node: a client brings
	// the certificate for it.
	Key []byte
	// Closed says why only the node's owner may configure it: an admin of
	// Authority, or a person who reads Code on the node's console. It is empty
	// for a node that was never configured, which takes the first configuration
	// that comes.
	Closed    string
	Authority string // PEM; empty where it is not known
	Code      string // at least 80 bits, in capitals
	Token     string // by which the owner recognises the node; empty for none
	TPM       bool   // whether the machine has one
	// Locked says why the data partition is locked; empty where it is not. A locked
	// node takes nothing but its recovery key, by Unlock.
	Locked string
	// OpenLocked opens the data partition with its recovery key.
	OpenLocked func(recoveryKey string) error
	// Store keeps a manifest that was accepted.
	Store  func(manifest string) error
	Logger *slog.Logger

	certificate tls.Certificate
	request     []byte
	done        func()
	once        mutexOnce
	machine     *object.Machine
	unlocked    bool
}

// Serve answers on l until a client has delivered a valid Machine manifest,
// which Store has accepted, or on a locked node the recovery key. It returns the parsed
// Machine, or nil.
func (m *Maintenance) Serve(ctx context.Context, l net.Listener) (*object.Machine, error) {
	server, err := m.server()
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	ctx, m.done = context.WithCancel(ctx)
	defer m.done()
	if err := serve(ctx, server, l); err != nil {
		return nil, err
	}
	if m.machine == nil && !m.unlocked {
		return nil, context.Cause(ctx)
	}
	return m.machine, nil
}

// Fingerprint is that of the certificate that Serve shows.
func (m *Maintenance) Fingerprint() (string, error) {
	if err := m.identify(); err != nil {
		return "", err
	}
	return pki.Fingerprint(m.certificate.Certificate[0]), nil
}

// identify makes the certificate once: its fingerprint is shown before.
func (m *Maintenance) identify() (err error) {
	if m.request != nil {
		return nil
	}
	pair, err := pki.NewMaintenance(m.Key)
	if err != nil {
		return err
	}
	if m.certificate, err = pair.TLS(); err != nil {
		return err
	}
	m.request, err = pki.NewRequest(m.Key)
	return err
}

func (m *Maintenance) server() (*http.Server, error) {
	if err := m.identify(); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle(oscinepbconnect.NewMaintenanceHandler(m, connect.WithReadMaxBytes(object.MaxBytes+1024)))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		text := "this node has no configuration yet: send it one with oscine config apply"
		if m.Locked != "" {
			text = m.lockedError().Error()
		}
		http.Error(w, text, http.StatusPreconditionFailed)
	})
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{m.certificate}, NextProtos: []string{"h2", "http/1.1"},
		// A client without one may still have read the console; see owner.
		ClientAuth: tls.RequestClientCert,
	}
	return newHTTPServer(withPeer(mux), config, m.Logger), nil
}

type peerKey struct{}

// withPeer puts the certificates that the client showed, which nobody has
// verified, into the context of each request.
func withPeer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			r = r.WithContext(context.WithValue(r.Context(), peerKey{}, r.TLS.PeerCertificates[0]))
		}
		next.ServeHTTP(w, r)
	})
}

// Describe implements the Maintenance service.
func (m *Maintenance) Describe(context.Context, *connect.Request[pb.DescribeRequest]) (*connect.Response[pb.DescribeResponse], error) {
	described := &pb.DescribeResponse{CertificateRequest: string(m.request), Closed: m.Closed, Locked: m.Locked, Tpm: m.TPM}
	if m.Token != "" {
		described.JoinProof = pki.JoinProof(m.Token, m.certificate.Certificate[0])
	}
	return connect.NewResponse(described), nil
}

// Answers reports, as Server.Answers, that the service answers.
func (m *Maintenance) Answers(ctx context.Context) error {
	_, handler := oscinepbconnect.NewMaintenanceHandler(m)
	node := oscinepbconnect.NewMaintenanceClient(inProcess(handler, caller{}), "http://self")
	_, err := node.Describe(ctx, connect.NewRequest(&pb.DescribeRequest{}))
	return err
}

func (m *Maintenance) lockedError() error {
	return fmt.Errorf("this node's data partition is locked: %s: open it with oscine unlock and its recovery key; to give its data up, put an empty file %s on the ESP with another computer, and restart", m.Locked, release.ESPReset)
}

// Unlock implements the Maintenance service. The key is too long to be guessed: nobody
// has to wait behind those who try.
func (m *Maintenance) Unlock(_ context.Context, req *connect.Request[pb.UnlockRequest]) (*connect.Response[pb.UnlockResponse], error) {
	if m.Locked == "" {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("the data partition of this node is not locked"))
	}
	err := m.once.do(func() error {
		if err := m.OpenLocked(req.Msg.RecoveryKey); err != nil {
			m.Logger.Warn("the data partition stays locked", "error", err)
			return err
		}
		m.unlocked = true
		m.done()
		return nil
	})
	if err != nil {
		return nil, coded(err)
	}
	return connect.NewResponse(&pb.UnlockResponse{}), nil
}

// Configure implements the Maintenance service.
func (m *Maintenance) Configure(ctx context.Context, req *connect.Request[pb.ConfigureRequest]) (*connect.Response[pb.ConfigureResponse], error) {
	if m.Locked != "" {
		return nil, connect.NewError(connect.CodeFailedPrecondition, m.lockedError())
	}
	if err := m.authorize(ctx, req.Msg.ConsoleCode); err != nil {
		return nil, connect.NewError(connect.CodePermissionDenied, err)
	}
	machine, err := object.ParseMachine(strings.NewReader(req.Msg.Manifest))
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	if err := m.checkIdentity(machine.Spec.API); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	err = m.once.do(func() error {
		if err := m.Store(req.Msg.Manifest); err != nil {
			return fmt.Errorf("store the configuration: %w", err)
		}
		m.machine = machine
		m.done()
		return nil
	})
	if err != nil {
		return nil, coded(err)
	}
	return connect.NewResponse(&pb.ConfigureResponse{}), nil
}

// checkIdentity refuses a certificate for another key than the node's, and any
// key that was sent: an eavesdropper has it too.
func (m *Maintenance) checkIdentity(api object.MachineAPI) error {
	if api.Key != "" {
		return errors.New("spec.api.key: the node makes its key itself: send the manifest with oscine config apply, which leaves the key out and has the node's certificate signed")
	}
	if _, err := tls.X509KeyPair([]byte(api.Certificate), m.Key); err != nil {
		return fmt.Errorf("spec.api.certificate: is not for this node's key: %w", err)
	}
	return nil
}

// authorize lets anyone configure a node that never was, and the owner any.
// The code is too long to be guessed, so that nobody has to wait behind those
// who try.
func (m *Maintenance) authorize(ctx context.Context, code string) error {
	switch {
	case m.Closed == "" || m.owner(ctx):
		return nil
	case code == "":
		return fmt.Errorf("%s: it takes a configuration only from an admin of its authority (oscine --context), or with the code on its console (--console-code)", m.Closed)
	case m.Code != "" && subtle.ConstantTimeCompare([]byte(strings.ToUpper(code)), []byte(m.Code)) == 1:
		return nil
	}
	m.Logger.Warn("wrong console code")
	return errors.New("that is not the code on the node's console")
}

// owner reports whether the client has shown an admin's certificate of the
// authority that the node had.
func (m *Maintenance) owner(ctx context.Context) bool {
	peer, ok := ctx.Value(peerKey{}).(*x509.Certificate)
	if !ok || m.Authority == "" {
		return false
	}
	pool, err := pki.Pool([]byte(m.Authority))
	if err != nil {
		return false
	}
	return pki.VerifyClient(pool, peer, time.Now()) == nil && pki.RoleOf(peer) >= pki.Admin
}
