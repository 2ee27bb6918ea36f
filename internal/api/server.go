package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	pbconnect "oscine.dev/oscine/internal/api/oscinepb/oscinepbconnect"
	"oscine.dev/oscine/internal/listen"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pki"
	"oscine.dev/oscine/internal/update/source"
)

// maxMessage bounds one message of any call: a manifest with some room for its
// envelope. Uploads come in many messages.
const maxMessage = object.MaxBytes + 64<<10

// Server answers a configured node's API.
type Server struct {
	http    *http.Server
	handler http.Handler // of the calls, without identity and bounds of a caller
}

// Node is what the API needs of a node, by domain.
type Node interface {
	wholeNode
	machineMap
	objectStore
	history
	workloadAccess
	imageStore
	modelStore
	volumeStore
	packStore
	latencyBench
	accessControl
	upgrader
	installer
	tokenStore
	configured

	// Inference answers the protocols of inference, at these routes.
	Inference() (routes []string, handler http.Handler)
	// Metrics answers Prometheus.
	Metrics() http.Handler
	// Releases gives files of releases to other nodes; nil where it gives none.
	Releases() http.Handler
}

// service mounts one domain of the API.
type service func(...connect.HandlerOption) (path string, handler http.Handler)

func mount[S any](handler func(S, ...connect.HandlerOption) (string, http.Handler), implementation S) service {
	return func(o ...connect.HandlerOption) (string, http.Handler) { return handler(implementation, o...) }
}

// services has a line for each domain.
func services(n Node, gate *entrance, authority *x509.CertPool) []service {
	return []service{
		mount[pbconnect.NodeHandler](pbconnect.NewNodeHandler, &nodeService{n}),
		mount[pbconnect.HardwareHandler](pbconnect.NewHardwareHandler, &hardwareService{n}),
		mount[pbconnect.ObjectsHandler](pbconnect.NewObjectsHandler, &objectService{n}),
		mount[pbconnect.LogsHandler](pbconnect.NewLogsHandler, &logService{n}),
		mount[pbconnect.WorkloadsHandler](pbconnect.NewWorkloadsHandler, &workloadService{node: n}),
		mount[pbconnect.ImagesHandler](pbconnect.NewImagesHandler, &imageService{n}),
		mount[pbconnect.ModelsHandler](pbconnect.NewModelsHandler, &modelService{n}),
		mount[pbconnect.VolumesHandler](pbconnect.NewVolumesHandler, &volumeService{n}),
		mount[pbconnect.PacksHandler](pbconnect.NewPacksHandler, &packService{n}),
		mount[pbconnect.BenchHandler](pbconnect.NewBenchHandler, &benchService{n}),
		mount[pbconnect.AccessHandler](pbconnect.NewAccessHandler, &accessService{n, gate, authority}),
		mount[pbconnect.UpgradesHandler](pbconnect.NewUpgradesHandler, &upgradeService{n}),
		mount[pbconnect.InstallationHandler](pbconnect.NewInstallationHandler, &installationService{n}),
		mount[pbconnect.TokensHandler](pbconnect.NewTokensHandler, &tokenService{n}),
		mount[pbconnect.ConfigurationHandler](pbconnect.NewConfigurationHandler, &configurationService{n}),
	}
}

// NewServer returns a server of n with its identity. Inference requests go to n's
// models, and /metrics to n's metrics, for readers and above.
func NewServer(n Node, logger *slog.Logger) *Server {
	releases := n.Releases()
	tlsConfig := serverTLS(n.Identity(), releases != nil)
	stopping, stop := context.WithCancel(context.Background())
	options := []connect.HandlerOption{
		connect.WithInterceptors(&authorizer{logger, stopping}, coder{}),
		connect.WithReadMaxBytes(maxMessage),
		connect.WithRecover(func(_ context.Context, spec connect.Spec, _ http.Header, p any) error {
			logger.Error("panic in a call", "procedure", spec.Procedure, "panic", p)
			return connect.NewError(connect.CodeInternal, fmt.Errorf("%s failed inside the node; see oscine logs oscined", spec.Procedure))
		}),
	}
	gate := newEntrance(n.Access())
	calls := http.NewServeMux()
	for _, s := range services(n, gate, tlsConfig.ClientCAs) {
		calls.Handle(s(options...))
	}
	mux := http.NewServeMux()
	mux.Handle("/", refusePeer(bounded(maxCalls, maxCallsCaller, calls)))
	mux.Handle("/metrics", requireRole(pki.Reader, n.Metrics()))
	if releases != nil {
		releases = http.StripPrefix(strings.TrimSuffix(source.PeerPath, "/"), releases)
		mux.Handle(source.PeerPath, requirePeer(bounded(maxReads, maxReadsCaller, releases)))
	}
	routes, inference := n.Inference()
	inference = requireRole(pki.Reader, inference)
	for _, route := range routes {
		mux.Handle(route, inference)
	}
	server := newHTTPServer(gate.identify(mux), tlsConfig, logger)
	server.ConnContext = withConnection
	server.RegisterOnShutdown(stop)
	return &Server{server, calls}
}

func newHTTPServer(handler http.Handler, config *tls.Config, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		TLSConfig:         config,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          log.New(&handshakeLog{logger}, "", 0),
	}
}

// handshakeLog notes refused strangers at debug level: on an open network
// they would fill the log.
type handshakeLog struct{ log *slog.Logger }

func (h *handshakeLog) Write(p []byte) (int, error) {
	h.log.Debug("http", "message", string(p))
	return len(p), nil
}

// Serve answers on l until ctx ends; calls under way get five seconds.
func (s *Server) Serve(ctx context.Context, l net.Listener) error { return serve(ctx, s.http, l) }

// serve answers until ctx ends, and then until the calls that came before are
// answered: one of them may have ended it.
func serve(ctx context.Context, server *http.Server, l net.Listener) error {
	answered := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(answered)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})
	defer stop()
	bounded := listen.New(l, connections())
	bounded.Watch(server)
	err := server.ServeTLS(bounded, "", "")
	if errors.Is(err, http.ErrServerClosed) {
		<-answered
		return nil
	}
	return fmt.Errorf("serve %s: %w", l.Addr(), err)
}
