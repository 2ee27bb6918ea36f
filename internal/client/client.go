package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	pbconnect "oscine.dev/oscine/internal/api/oscinepb/oscinepbconnect"
	"oscine.dev/oscine/internal/pki"
)

// maxMessage bounds one message of a node; the largest are maps of machines.
const maxMessage = 32 << 20

// Client talks to one node over mutual TLS: a field for each domain of its API.
type Client struct {
	Node      pbconnect.NodeClient
	Hardware  pbconnect.HardwareClient
	Objects   pbconnect.ObjectsClient
	Logs      pbconnect.LogsClient
	Workloads pbconnect.WorkloadsClient
	Images    pbconnect.ImagesClient
	Models    pbconnect.ModelsClient
	Volumes   pbconnect.VolumesClient
	Packs     pbconnect.PacksClient
	Bench     pbconnect.BenchClient
	Access    pbconnect.AccessClient
	Upgrades  pbconnect.UpgradesClient
	Tokens    pbconnect.TokensClient
	// Installation puts what the node runs on other disks.
	Installation pbconnect.InstallationClient
	// Configuration is the node's own Machine.
	Configuration pbconnect.ConfigurationClient

	address string
	http    *http.Client
	pair    tls.Certificate
}

// New returns a client for a context; it dials on the first call.
func New(ctx *Context) (*Client, error) {
	pool, err := pki.Pool([]byte(ctx.CA))
	if err != nil {
		return nil, fmt.Errorf("context for %s: %w", ctx.Address, err)
	}
	pair, err := tls.X509KeyPair([]byte(ctx.Certificate), []byte(ctx.Key))
	if err != nil {
		return nil, fmt.Errorf("context for %s: client certificate: %w", ctx.Address, err)
	}
	if time.Now().After(pair.Leaf.NotAfter) {
		return nil, fmt.Errorf("your certificate for %s expired on %s: %s", ctx.Address, pair.Leaf.NotAfter.Format(time.DateOnly), HowToRenew(pair.Leaf))
	}
	return dial(ctx.Address, pair, &tls.Config{
		MinVersion:   tls.VersionTLS13,
		RootCAs:      pool,
		ServerName:   ctx.ServerName,
		Certificates: []tls.Certificate{pair},
	}), nil
}

// dial is a client of the node at address.
func dial(address string, pair tls.Certificate, config *tls.Config) *Client {
	client := newHTTPClient(config)
	url := "https://" + address
	options := connect.WithClientOptions(connect.WithInterceptors(explainErrors(address)), connect.WithReadMaxBytes(maxMessage))
	return &Client{
		Node:          pbconnect.NewNodeClient(client, url, options),
		Hardware:      pbconnect.NewHardwareClient(client, url, options),
		Objects:       pbconnect.NewObjectsClient(client, url, options),
		Logs:          pbconnect.NewLogsClient(client, url, options),
		Workloads:     pbconnect.NewWorkloadsClient(client, url, options),
		Images:        pbconnect.NewImagesClient(client, url, options),
		Models:        pbconnect.NewModelsClient(client, url, options),
		Volumes:       pbconnect.NewVolumesClient(client, url, options),
		Packs:         pbconnect.NewPacksClient(client, url, options),
		Bench:         pbconnect.NewBenchClient(client, url, options),
		Access:        pbconnect.NewAccessClient(client, url, options),
		Upgrades:      pbconnect.NewUpgradesClient(client, url, options),
		Tokens:        pbconnect.NewTokensClient(client, url, options),
		Installation:  pbconnect.NewInstallationClient(client, url, options),
		Configuration: pbconnect.NewConfigurationClient(client, url, options),
		address:       address,
		http:          client,
		pair:          pair,
	}
}

// HowToRenew says how a client gets another certificate without the node.
func HowToRenew(cert *x509.Certificate) string {
	return fmt.Sprintf("renew it with oscine config renew --authority DIR, the folder with ca.crt and ca.key; if you have none, ask its owner for the FILE of oscine config credentials %q --role %s -o FILE, and take it with oscine config merge FILE --force",
		cert.Subject.CommonName, pki.RoleOf(cert))
}

// Renew asks the node for a certificate for another key, PEM, in place of the
// context's. It returns "" until the holder of the authority has signed one.
func (c *Client) Renew(ctx context.Context, authority *x509.CertPool, key []byte) (certificate string, err error) {
	renewal, err := pki.NewRenewal(c.pair, key)
	if err != nil {
		return "", err
	}
	resp, err := c.Access.Renew(ctx, connect.NewRequest(&pb.RenewRequest{CertificateRequest: string(renewal.Request), Signature: renewal.Signature.Value}))
	if err != nil || resp.Msg.Certificate == "" {
		return "", err
	}
	if err := renewal.CheckAnswer(authority, []byte(resp.Msg.Certificate), time.Now()); err != nil {
		return "", err
	}
	return resp.Msg.Certificate, nil
}

// HTTP returns the client's transport and the base URL of the node, for the
// Open Inference Protocol over the same port and certificates.
func (c *Client) HTTP() (*http.Client, string) { return c.http, "https://" + c.address }

// Sign signs a statement with the client's key.
func (c *Client) Sign(statement []byte) (pki.Signature, error) { return pki.Sign(c.pair, statement) }

func newHTTPClient(config *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:                 nil, // a node is reached directly; its certificate names no proxy
		TLSClientConfig:       config,
		ForceAttemptHTTP2:     true,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       time.Minute,
		ExpectContinueTimeout: time.Second,
		// A node that lost power sends nothing any more: ask it.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
	}}
}

// explainErrors turns transport errors into ones that say what to do.
func explainErrors(address string) connect.Interceptor { return &explainer{address} }

type explainer struct{ address string }

func (x *explainer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		resp, err := next(ctx, req)
		return resp, Explain(err, x.address)
	}
}

func (x *explainer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return &explainedStream{next(ctx, spec), x.address}
	}
}

// explainedStream explains what ends a stream.
type explainedStream struct {
	connect.StreamingClientConn
	address string
}

func (s *explainedStream) Receive(m any) error {
	return Explain(s.StreamingClientConn.Receive(m), s.address)
}

func (s *explainedStream) Send(m any) error {
	return Explain(s.StreamingClientConn.Send(m), s.address)
}

func (x *explainer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// Explain rewrites the errors of a call to the node at address so that they
// name the reason and the next step; others pass unchanged.
func Explain(err error, address string) error {
	if err == nil || errors.Is(err, context.Canceled) || connect.IsWireError(err) {
		return err // none, the caller's own, or what the node itself answered
	}
	text := err.Error()
	var invalid x509.CertificateInvalidError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return unreachable("%s: nothing listens there: is the node up (oscine machine list, or oscined --hosted on its computer), and the port right (oscine config contexts)?", address)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), strings.Contains(text, "TLS handshake timeout"), strings.HasSuffix(text, ": EOF"):
		return unreachable("%s: the connection was cut before an answer: the node is starting, restarting or stopping: try again, or watch it with oscine machine console (%w)", address, err)
	case strings.Contains(text, "client connection lost"), strings.Contains(text, "unexpected EOF"), strings.Contains(text, "GOAWAY"):
		return unreachable("%s: the connection was lost: the node stopped, restarted or is out of reach: try again, or watch it with oscine machine console (%w)", address, err)
	case strings.Contains(text, "certificate is valid for "+pki.MaintenanceName):
		return unreachable("%s: the node waits for its configuration: oscine config apply -f MACHINE.yaml --address %s", address, address)
	case strings.Contains(text, "certificate signed by unknown authority"), strings.Contains(text, "certificate is valid for"):
		return fmt.Errorf("%s: the node's certificate is not from this context's authority: another machine answers there, or it was configured again (%w)", address, err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && strings.Contains(invalid.Detail, "is after"):
		return fmt.Errorf("%s: the node's certificate expired at %s by this computer's clock: if that is wrong, set the clock; else the holder of the authority renews it with oscine attest %s --renew, or for a node without a TPM with oscine config certify (%w)",
			address, invalid.Cert.NotAfter.Format(time.RFC3339), nameOf(invalid.Cert.Subject.CommonName), err)
	case strings.Contains(text, "certificate has expired or is not yet valid"):
		return fmt.Errorf("%s: the node's certificate is not valid yet at the time of this computer's clock, %s: set the clock (%w)", address, time.Now().Format(time.DateOnly), err)
	case strings.Contains(text, "remote error: tls"), strings.Contains(text, "certificate required"):
		return fmt.Errorf("%s: the node does not accept this context's certificate: it is expired or from another authority; see oscine config contexts (%w)", address, err)
	case strings.Contains(text, "no such host"):
		return unreachable("%s: the name has no address (%w)", address, err)
	case strings.Contains(text, "i/o timeout"), strings.Contains(text, "no route to host"), strings.Contains(text, "network is unreachable"):
		return unreachable("%s: no answer: is the machine up and the network there? (%w)", address, err)
	}
	return err
}

// unavailable is the error of a call that did not reach the node; its method
// gives it that class in github.com/containerd/errdefs.
type unavailable struct{ error }

func (unavailable) Unavailable() {}

func (u unavailable) Unwrap() error { return u.error }

func unreachable(format string, args ...any) error {
	return unavailable{fmt.Errorf(format, args...)}
}
