package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"oscine.dev/oscine/internal/listen"
	"oscine.dev/oscine/internal/node"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/fastpath"
)

// openPort answers without client certificates on a port that the Machine file
// opens on purpose.
type openPort struct {
	what     string
	listener net.Listener
	handler  http.Handler
	secured  *tls.Config // nil: not encrypted
	log      *slog.Logger
}

// openPorts listens for what the Machine file opens, all of it or nothing.
func openPorts(o *options, n *node.Node, machine *object.Machine, log *slog.Logger) ([]openPort, error) {
	var open []openPort
	var errs []error
	add := func(what string, port int, handler http.Handler, secured *tls.Config) {
		l, err := net.Listen("tcp", listenAddress(o, port))
		if err != nil {
			errs = append(errs, fmt.Errorf("listen for %s: %w: choose another spec.%s.port", what, err, what))
			return
		}
		log.Info(what+" without client certificates", "address", l.Addr().String(), "tls", secured != nil)
		open = append(open, openPort{what, l, handler, secured, log})
	}
	if inference := machine.Spec.Inference; inference != nil {
		_, handler := n.Inference()
		var secured *tls.Config
		if inference.TLS {
			secured = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: n.Identity().Certificate}
		}
		add("inference", inference.Port, n.Tokens().Guard(inference.Tokens == object.TokensRequired, handler), secured)
	}
	if metrics := machine.Spec.Metrics; metrics != nil {
		pages := http.NewServeMux()
		pages.Handle("/metrics", n.Metrics())
		add("metrics", metrics.Port, pages, nil)
	}
	if len(errs) > 0 {
		for _, p := range open {
			p.listener.Close()
		}
		return nil, errors.Join(errs...)
	}
	return open, nil
}

// openGrace is how long requests that were accepted get to be answered before the
// daemon ends.
const openGrace = 5 * time.Second

// serve answers until ctx ends.
func (p openPort) serve(ctx context.Context) error {
	server := &http.Server{Handler: p.handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		TLSConfig: p.secured,
		ErrorLog:  slog.NewLogLogger(p.log.Handler(), slog.LevelDebug)} // strangers fill it on an open network
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true)
	server.Protocols.SetUnencryptedHTTP2(true) // which gRPC's clients speak
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), openGrace)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})
	defer func() {
		if !stop() {
			<-ended
		}
	}()
	bounded := listen.New(p.listener, listen.Limits{Strangers: 512, StrangersPerAddress: 128, Clients: 8192, ClientsPerAddress: 2048})
	bounded.Watch(server)
	var err error
	if p.secured != nil {
		err = server.ServeTLS(bounded, "", "")
	} else {
		err = fastpath.Serve(server, bounded)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", p.what, err)
	}
	return nil
}
