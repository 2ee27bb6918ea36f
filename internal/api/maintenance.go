package api

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/api/oscinepb/oscinepbconnect"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pki"
)

// Maintain answers the Maintenance service on l, and nothing else, until a
// client has delivered a valid Machine manifest, which store has accepted. It
// returns the parsed Machine.
func Maintain(ctx context.Context, l net.Listener, store func(text string) error, logger *slog.Logger) (*object.Machine, error) {
	pair, err := pki.NewSelfSigned("oscine-maintenance")
	if err != nil {
		return nil, err
	}
	certificate, err := pair.TLS()
	if err != nil {
		return nil, err
	}
	logger.Warn("no configuration: waiting in maintenance mode",
		"address", l.Addr().String(), "fingerprint", pki.Fingerprint(certificate.Certificate[0]))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := &maintenance{store: store, done: cancel}
	mux := http.NewServeMux()
	mux.Handle(oscinepbconnect.NewMaintenanceHandler(m, connect.WithReadMaxBytes(object.MaxBytes+1024)))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "this node has no configuration yet: send it one with oscine config apply", http.StatusPreconditionFailed)
	})
	server := newHTTPServer(mux, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2", "http/1.1"}}, logger)
	if err := serve(ctx, server, l); err != nil {
		return nil, err
	}
	if m.machine == nil {
		return nil, context.Cause(ctx)
	}
	return m.machine, nil
}

// maintenance takes the first valid configuration.
type maintenance struct {
	store   func(string) error
	done    func()
	once    mutexOnce
	machine *object.Machine
}

func (m *maintenance) Configure(_ context.Context, req *connect.Request[pb.ConfigureRequest]) (*connect.Response[pb.ConfigureResponse], error) {
	machine, err := object.ParseMachine(strings.NewReader(req.Msg.Manifest))
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	err = m.once.do(func() error {
		if err := m.store(req.Msg.Manifest); err != nil {
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
