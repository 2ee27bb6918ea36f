package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"connectrpc.com/connect"

	"oscine.dev/oscine/internal/api/oscinepb/oscinepbconnect"
	"oscine.dev/oscine/internal/pki"
)

// required is the role that each procedure of the Node service needs. A
// procedure that is not listed is refused, so a new one cannot be left open.
var required = map[string]pki.Role{
	oscinepbconnect.NodeInfoProcedure:           pki.Reader,
	oscinepbconnect.NodeDoctorProcedure:         pki.Reader,
	oscinepbconnect.NodeHardwareProcedure:       pki.Reader,
	oscinepbconnect.NodeWatchHardwareProcedure:  pki.Reader,
	oscinepbconnect.NodeRecordHardwareProcedure: pki.Reader,
	oscinepbconnect.NodeEventsProcedure:         pki.Reader,
	oscinepbconnect.NodeGetProcedure:            pki.Reader,
	oscinepbconnect.NodeWatchProcedure:          pki.Reader,
	oscinepbconnect.NodeLogsProcedure:           pki.Reader,
	oscinepbconnect.NodeDmesgProcedure:          pki.Reader,
	oscinepbconnect.NodeListImagesProcedure:     pki.Reader,
	oscinepbconnect.NodeListPacksProcedure:      pki.Reader,
	oscinepbconnect.NodeApplyProcedure:          pki.Operator,
	oscinepbconnect.NodeDeleteProcedure:         pki.Operator,
	oscinepbconnect.NodeExecProcedure:           pki.Operator,
	oscinepbconnect.NodeCopyInProcedure:         pki.Operator,
	oscinepbconnect.NodeCopyOutProcedure:        pki.Operator,
	oscinepbconnect.NodeImportImageProcedure:    pki.Operator,
	oscinepbconnect.NodePullImageProcedure:      pki.Operator,
	oscinepbconnect.NodeRemoveImageProcedure:    pki.Operator,
	oscinepbconnect.NodeUploadModelProcedure:    pki.Operator,
	oscinepbconnect.NodeInstallPackProcedure:    pki.Admin,
	oscinepbconnect.NodeRemovePackProcedure:     pki.Admin,
	// Work of its class default is outside all classes: it competes with the daemon.
	oscinepbconnect.NodeBenchLatencyProcedure: pki.Admin,
	oscinepbconnect.NodeRebootProcedure:       pki.Admin,
}

// caller is who calls, by the verified client certificate.
type caller struct {
	name string
	role pki.Role
}

type callerKey struct{}

// identify puts the caller of each request into its context. The TLS layer
// has verified the certificate already.
func identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := callerOf(r.TLS)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, who)))
	})
}

func callerOf(state *tls.ConnectionState) caller {
	if state == nil || len(state.VerifiedChains) == 0 {
		return caller{}
	}
	leaf := state.VerifiedChains[0][0]
	return caller{leaf.Subject.CommonName, pki.RoleOf(leaf)}
}

// authorizer refuses calls beyond the caller's role and logs the ones that
// change something.
type authorizer struct {
	log *slog.Logger
	// stopping ends when the server begins to stop.
	stopping context.Context
}

func (a *authorizer) check(ctx context.Context, procedure string) error {
	who, _ := ctx.Value(callerKey{}).(caller)
	need, known := required[procedure]
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
		if err := a.check(ctx, req.Spec().Procedure); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

func (a *authorizer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (a *authorizer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := a.check(ctx, conn.Spec().Procedure); err != nil {
			return err
		}
		if !endless(conn.Spec().Procedure) {
			return next(ctx, conn)
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(a.stopping, cancel)()
		err := next(ctx, conn)
		if err != nil && a.stopping.Err() != nil {
			return connect.NewError(connect.CodeUnavailable, errors.New("the node is stopping or starting again: ask again in a moment"))
		}
		return err
	}
}

// endless names the calls that go on until their caller leaves, or for long. A
// server that stops ends them at once, where it lets others finish.
func endless(procedure string) bool {
	switch procedure {
	case oscinepbconnect.NodeWatchProcedure, oscinepbconnect.NodeWatchHardwareProcedure, oscinepbconnect.NodeEventsProcedure,
		oscinepbconnect.NodeLogsProcedure, oscinepbconnect.NodeDmesgProcedure, oscinepbconnect.NodeBenchLatencyProcedure:
		return true
	}
	return false
}

// requireRole guards a plain HTTP handler on the API's port.
func requireRole(role pki.Role, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if who, _ := r.Context().Value(callerKey{}).(caller); who.role < role {
			http.Error(w, fmt.Sprintf("%s needs role %s", r.URL.Path, role), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// serverTLS demands a client certificate of the authority.
func serverTLS(ca, certificate, key string) (*tls.Config, error) {
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		return nil, fmt.Errorf("node certificate: %w", err)
	}
	pool, err := pki.Pool([]byte(ca))
	if err != nil {
		return nil, errors.Join(errors.New("spec.api.ca"), err)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
		NextProtos:   []string{"h2", "http/1.1"},
	}, nil
}
