package api

import (
	"bytes"
	"context"
	"io"
	"net/http"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	pbconnect "oscine.dev/oscine/internal/api/oscinepb/oscinepbconnect"
	"oscine.dev/oscine/internal/pki"
)

// noObject is a name that no object can have.
const noObject = "-"

// Answers calls the API from within, through everything but the network: that
// strangers hold all connections is no reason to start the daemon again. It
// returns nil when the node has looked for an object, which takes its main
// lock. A node that hangs lets it hang.
func (s *Server) Answers(ctx context.Context) error {
	self := caller{name: "the daemon itself", role: pki.Reader}
	node := pbconnect.NewObjectsClient(inProcess(s.handler, self), "http://self")
	_, err := node.Get(ctx, connect.NewRequest(&pb.GetRequest{Name: noObject}))
	if connect.CodeOf(err) == connect.CodeNotFound {
		return nil
	}
	return err
}

// inProcess is a client whose requests handler answers, as calls of who.
func inProcess(handler http.Handler, who caller) *http.Client {
	return &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		a := &answer{header: http.Header{}, status: http.StatusOK}
		handler.ServeHTTP(a, r.WithContext(context.WithValue(r.Context(), callerKey{}, who)))
		return &http.Response{
			Status: http.StatusText(a.status), StatusCode: a.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: a.header, Body: io.NopCloser(&a.body), ContentLength: int64(a.body.Len()), Request: r,
		}, nil
	})}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// answer collects what a handler answers to one unary call.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }
