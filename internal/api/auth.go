package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/node/identity"
	"oscine.dev/oscine/internal/pki"
)

// rule is what the API's definition says of a method.
type rule struct {
	role    pb.Role
	endless bool
}

// ruleOf reads the options of the method that is called. A method without a
// role is refused, so a new one cannot be left open.
func ruleOf(spec connect.Spec) rule {
	method, ok := spec.Schema.(protoreflect.MethodDescriptor)
	if !ok {
		return rule{}
	}
	role, _ := proto.GetExtension(method.Options(), pb.E_Role).(pb.Role)
	endless, _ := proto.GetExtension(method.Options(), pb.E_Endless).(bool)
	return rule{role, endless}
}

// needs returns the role that a caller must have; false where nobody may call.
func (r rule) needs() (pki.Role, bool) {
	switch r.role {
	case pb.Role_ROLE_READER:
		return pki.Reader, true
	case pb.Role_ROLE_OPERATOR:
		return pki.Operator, true
	case pb.Role_ROLE_ADMIN:
		return pki.Admin, true
	}
	return 0, false
}

// caller is who calls, by the verified client certificate.
type caller struct {
	name    string
	role    pki.Role
	until   time.Time // when the certificate expires; zero for none
	serial  string    // of the certificate
	leaf    *x509.Certificate
	refused error // why nothing is answered; nil where the role decides
}

// node reports whether the caller is another node.
func (c caller) node() bool { return c.leaf != nil && pki.IsNode(c.leaf) }

type callerKey struct{}

// verified is the state of a connection that serverTLS has verified, with the
// client's certificate as its chain.
func verified(state *tls.ConnectionState) *tls.ConnectionState {
	if state == nil || len(state.PeerCertificates) == 0 {
		return state
	}
	chained := *state
	chained.VerifiedChains = [][]*x509.Certificate{state.PeerCertificates[:1]}
	return &chained
}

func callerOf(state *tls.ConnectionState) caller {
	if state == nil || len(state.VerifiedChains) == 0 {
		return caller{}
	}
	leaf := state.VerifiedChains[0][0]
	return caller{name: leaf.Subject.CommonName, role: pki.RoleOf(leaf), until: leaf.NotAfter, serial: pki.Serial(leaf), leaf: leaf}
}

// authorizer refuses calls beyond the caller's role and logs the ones that
// change something.
type authorizer struct {
	log *slog.Logger
	// stopping ends when the server begins to stop.
	stopping context.Context
}

func (a *authorizer) check(ctx context.Context, spec connect.Spec) error {
	who, _ := ctx.Value(callerKey{}).(caller)
	if who.refused != nil {
		return connect.NewError(connect.CodeUnauthenticated, who.refused)
	}
	procedure := spec.Procedure
	need, known := ruleOf(spec).needs()
	if !known {
		return connect.NewError(connect.CodePermissionDenied, fmt.Errorf("no role may call %s", procedure))
	}
	if who.role < need {
		return connect.NewError(connect.CodePermissionDenied,
			fmt.Errorf("%s needs role %s, and %q has role %s: ask for other credentials (oscine config credentials --role %s)", procedure, need, who.name, who.roleName(), need))
	}
	if need > pki.Reader {
		a.log.Info("call", "procedure", procedure, "by", who.name, "role", who.role.String())
	}
	return nil
}

func (c caller) roleName() string {
	if c.role == 0 {
		return "none"
	}
	return c.role.String()
}

func (a *authorizer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if err := a.check(ctx, req.Spec()); err != nil {
			return nil, err
		}
		resp, err := next(ctx, req)
		return resp, cutOff(ctx, err)
	}
}

// cutOff says why a call failed that ended with its caller's certificate.
func cutOff(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && (errors.Is(cause, errRevoked) || errors.Is(cause, errExpired)) {
		return connect.NewError(connect.CodeUnauthenticated, cause)
	}
	return err
}

func (a *authorizer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (a *authorizer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := a.check(ctx, conn.Spec()); err != nil {
			return err
		}
		if !ruleOf(conn.Spec()).endless {
			return cutOff(ctx, next(ctx, conn))
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(a.stopping, cancel)()
		err := next(ctx, conn)
		if err != nil && a.stopping.Err() != nil {
			return connect.NewError(connect.CodeUnavailable, errors.New("the node is stopping or starting again: ask again in a moment"))
		}
		return cutOff(ctx, err)
	}
}

// requireRole guards a plain HTTP handler on the API's port.
func requireRole(role pki.Role, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, _ := r.Context().Value(callerKey{}).(caller)
		if who.refused != nil {
			http.Error(w, who.refused.Error(), http.StatusUnauthorized)
			return
		}
		if who.role < role {
			http.Error(w, fmt.Sprintf("%s needs role %s", r.URL.Path, role), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// requirePeer is requireRole for other nodes of the cluster, and for readers.
func requirePeer(next http.Handler) http.Handler {
	readers := requireRole(pki.Reader, next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if who, _ := r.Context().Value(callerKey{}).(caller); who.refused == nil && who.node() {
			next.ServeHTTP(w, r)
			return
		}
		readers.ServeHTTP(w, r)
	})
}

// refusePeer refuses other nodes before anything of their request is read: a node has no role.
func refusePeer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if who, _ := r.Context().Value(callerKey{}).(caller); who.node() {
			http.Error(w, fmt.Sprintf("%s needs a role, and the certificate of the node %q has none: it reads files of releases only", r.URL.Path, who.name), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// serverTLS shows the node's certificate of the moment, and demands a client
// certificate of the authority, or with nodes one of a node, which has no role.
func serverTLS(own *identity.Identity, nodes bool) *tls.Config {
	pool := own.Authority()
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: own.Certificate,
		// Not RequireAndVerifyClientCert, which lets nobody in while the node's
		// clock stands at 1970.
		ClientAuth: tls.RequireAnyClientCert,
		ClientCAs:  pool,
		VerifyConnection: func(state tls.ConnectionState) error { // of resumed connections too
			if leaf := state.PeerCertificates[0]; nodes && pki.IsNode(leaf) {
				return pki.VerifyNode(pool, leaf, time.Now())
			}
			return pki.VerifyClient(pool, state.PeerCertificates[0], time.Now())
		},
		NextProtos: []string{"h2", "http/1.1"},
	}
}
