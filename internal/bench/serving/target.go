package serving

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"oscine.dev/oscine/internal/serve/oip"
)

// The protocols by which a model is asked.
const (
	HTTP = "http"
	GRPC = "grpc"
)

// The encodings of tensors over HTTP; gRPC's are always binary.
const (
	Binary = "binary"
	JSON   = "json"
)

// Endpoint is a server of the Open Inference Protocol.
type Endpoint struct {
	URL      string      // http or https, without a path
	TLS      *tls.Config // of https; nil: the system's authorities
	Version  string      // of the model; empty for the one that the server chooses
	Token    string      // sent as Authorization: Bearer; empty for none
	Protocol string
	Clients  int // how many requests there are at a time
}

// Target is a server to which requests are sent.
type Target interface {
	// Model asks for a model's description.
	Model(ctx context.Context, name string) (*oip.Model, error)
	// HasBinary reports whether the server takes tensors as bytes.
	HasBinary(ctx context.Context) (bool, error)
	// Prepare encodes a request to a model, whole, before anything is measured.
	Prepare(model string, inputs []oip.Tensor, encoding string) (Prepared, error)
	// Close ends the connections.
	Close()
}

// Prepared is a request that can be sent many times.
type Prepared interface {
	// Send sends it and reads the answer, which is dropped.
	Send(ctx context.Context) error
	// Answer sends it and returns the outputs.
	Answer(ctx context.Context) ([]oip.Tensor, error)
	// Size is how many bytes are sent, without headers.
	Size() int
}

// Dial returns the target of an endpoint; it connects at the first request.
func Dial(e Endpoint) (Target, error) {
	if e.Protocol == GRPC {
		return dialGRPC(e)
	}
	transport := &http.Transport{
		TLSClientConfig:     e.TLS,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		MaxIdleConnsPerHost: e.Clients,
		Protocols:           new(http.Protocols), // a connection for each client, as most clients have
		DisableCompression:  true,
	}
	transport.Protocols.SetHTTP1(true)
	return &httpTarget{&oip.Client{HTTP: &http.Client{Transport: transport}, URL: e.URL, Version: e.Version, Token: e.Token}}, nil
}

// httpTarget speaks HTTP/1.1.
type httpTarget struct{ client *oip.Client }

func (t *httpTarget) Model(ctx context.Context, name string) (*oip.Model, error) {
	return t.client.Model(ctx, name)
}

func (t *httpTarget) HasBinary(ctx context.Context) (bool, error) {
	extensions, err := t.client.Extensions(ctx)
	return slices.Contains(extensions, "binary_tensor_data"), err
}

func (t *httpTarget) Close() { t.client.HTTP.CloseIdleConnections() }

func (t *httpTarget) Prepare(model string, inputs []oip.Tensor, encoding string) (Prepared, error) {
	encode := oip.EncodeBinary
	if encoding == JSON {
		encode = oip.EncodeJSON
	}
	body, err := encode(inputs)
	return &httpRequest{t.client, model, body}, err
}

// PrepareText is a request as the protocol writes it in JSON.
func (t *httpTarget) PrepareText(model string, request []byte) Prepared {
	return &httpRequest{t.client, model, oip.Request{Body: request}}
}

type httpRequest struct {
	client *oip.Client
	model  string
	body   oip.Request
}

func (r *httpRequest) Size() int { return len(r.body.Body) }

func (r *httpRequest) Send(ctx context.Context) error {
	answer, err := r.client.Send(ctx, r.model, r.body)
	if err != nil {
		return err
	}
	defer answer.Close()
	_, err = io.Copy(io.Discard, answer)
	return err
}

func (r *httpRequest) Answer(ctx context.Context) ([]oip.Tensor, error) {
	return r.client.Answer(ctx, r.model, r.body)
}

// PrepareText encodes a request that the protocol's JSON describes.
func PrepareText(t Target, model string, request []byte) (Prepared, error) {
	if web, ok := t.(*httpTarget); ok {
		return web.PrepareText(model, request), nil
	}
	inputs, err := oip.ParseRequest(request)
	if err != nil {
		return nil, err
	}
	return t.Prepare(model, inputs, Binary)
}

// reasonOf sorts a failure under one of few reasons, with what was said.
func reasonOf(err error) (reason, example string) {
	var refused *oip.Error
	var network *url.Error
	if errors.As(err, &network) { // without the address
		err = network.Err
	}
	switch {
	case errors.Is(err, errTimeout), errors.Is(err, errUnsent):
		return err.Error(), ""
	case errors.As(err, &refused) && refused.Code != "":
		return refused.Code, refused.Text
	case errors.As(err, &refused):
		return strings.TrimSpace(fmt.Sprintf("HTTP %d %s", refused.Status, http.StatusText(refused.Status))), refused.Text
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused", ""
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection cut", err.Error()
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EMFILE):
		return "this machine has no more ports or descriptors", err.Error()
	case os.IsTimeout(err):
		return "connecting timed out", ""
	}
	return "connection failed", err.Error()
}
