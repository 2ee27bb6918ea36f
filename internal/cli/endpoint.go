package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pki"
	"oscine.dev/oscine/internal/serve/oip"
)

// tokenVariable holds the token of an endpoint, out of the sight of other users,
// who can read arguments.
const tokenVariable = "OSCINE_TOKEN"

// endpoint are the flags of commands that ask a model: the context's node answers,
// or another server.
type endpoint struct{ url, token, ca string }

func (e *endpoint) addFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&e.url, "url", "", "a server of the Open Inference Protocol or OpenAI's API, instead of the context's node")
	f.StringVar(&e.token, "token", "", "bearer token for --url (default $"+tokenVariable+")")
	f.StringVar(&e.ca, "ca", "", "PEM file of the authority that signed the certificate of --url (default: the system's and the context's)")
}

// server is the context's node, or that of --url.
func (e *endpoint) server(env *Env) (*oip.Client, error) {
	if e.url != "" {
		return e.other(env)
	}
	if e.token != "" {
		return nil, usageError{errors.New("--token is for --url: the context's node recognises you by your certificate")}
	}
	if e.ca != "" {
		return nil, usageError{errors.New("--ca is for --url: the context has the authority of its node")}
	}
	node, err := env.Client()
	if err != nil {
		return nil, err
	}
	return inferenceOf(node), nil
}

// other is the server of --url.
func (e *endpoint) other(env *Env) (*oip.Client, error) {
	u, err := url.Parse(e.url)
	if err == nil && u.User != nil {
		return nil, usageError{errors.New("--url: leave out the user and password, which reports would show")}
	}
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usageError{fmt.Errorf("--url %q: write http://HOST:PORT", e.url)}
	}
	token, from := e.token, "--token"
	if token == "" {
		token, from = os.Getenv(tokenVariable), "$"+tokenVariable
	}
	token = strings.TrimSpace(token)
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) { // RFC 6750, section 2.1
		return nil, usageError{fmt.Errorf("%s is not a token: give the one line that oscine token create prints", from)}
	}
	trusted, err := e.authorities(env)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: trusted}
	return &oip.Client{HTTP: &http.Client{Transport: transport}, URL: strings.TrimSuffix(e.url, "/"), Token: token}, nil
}

// maxAuthorities bounds the file of --ca in bytes.
const maxAuthorities = 1 << 20

// authorities are those that the server of --url is trusted by.
func (e *endpoint) authorities(env *Env) (*x509.CertPool, error) {
	if e.ca != "" {
		text, err := readBounded(env, e.ca, maxAuthorities, "more than the certificates of authorities")
		if err != nil {
			return nil, err
		}
		pool, err := pki.Pool(text)
		if err != nil {
			return nil, usageError{fmt.Errorf("--ca %s: %w", e.ca, err)}
		}
		return pool, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if _, context, err := env.context(); err == nil { // there need be none
		pool.AppendCertsFromPEM([]byte(context.CA))
	}
	return pool, nil
}

// explain adds the next step to what a server, or the network on the way to it,
// said of a request to a model.
func (e *endpoint) explain(ctx context.Context, env *Env, server *oip.Client, model string, err error) error {
	var request *url.Error
	switch status := answered(err); {
	case err == nil || ctx.Err() != nil:
		return err
	case e.url != "" && errors.As(err, &request):
		return e.unreached(request)
	case errors.As(err, &request):
		return client.Explain(err, strings.TrimPrefix(server.URL, "https://"))
	case status == http.StatusBadRequest && strings.Contains(err.Error(), "HTTP request to an HTTPS server"):
		return usageError{fmt.Errorf("%s speaks TLS: write --url %s", e.url, strings.Replace(e.url, "http://", "https://", 1))}
	case status == http.StatusUnauthorized && server.Token != "":
		return fmt.Errorf("%w: get another token from an administrator of the node, who makes one with oscine token create", err)
	case status == http.StatusUnauthorized:
		return fmt.Errorf("%w: give it by $%s or --token", err, tokenVariable)
	case e.url == "" && status != 0:
		return notServed(ctx, env, model, err)
	}
	return withHint(err, model)
}

// unreached is the error of a request that --url did not answer.
func (e *endpoint) unreached(request *url.Error) error {
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(request, &untrusted):
		return fmt.Errorf("%s: its certificate is not trusted: %w: give the authority that signed it by --ca FILE; a node's is in ca.crt, beside its Machine file", e.url, untrusted.Err)
	case strings.Contains(request.Error(), "server gave HTTP response to HTTPS client"):
		return usageError{fmt.Errorf("%s speaks plain HTTP: write --url %s", e.url, strings.Replace(e.url, "https://", "http://", 1))}
	}
	return unreached{fmt.Errorf("%s does not answer: %w: is the server up, and the port right?", e.url, request.Err)}
}

// withHint adds where to look to a refusal.
func withHint(err error, model string) error {
	switch answered(err) {
	case http.StatusNotFound:
		return fmt.Errorf("%w: see oscine get models, and oscine serve FILE to serve one", err)
	case http.StatusServiceUnavailable:
		return fmt.Errorf("%w: see oscine describe model %s", err, model)
	}
	return err
}

// notServed says what the node knows of a model that does not answer.
func notServed(ctx context.Context, env *Env, model string, refusal error) error {
	hint := withHint(refusal, model)
	node, err := env.Client()
	if err != nil {
		return hint
	}
	resp, err := node.Objects.Get(ctx, connect.NewRequest(&pb.GetRequest{Kind: string(object.KindModel), Name: model}))
	if err != nil || len(resp.Msg.Objects) != 1 {
		return hint
	}
	state, err := client.State(env.Kinds, resp.Msg.Objects[0])
	if err != nil || state.Status == nil {
		return hint
	}
	if st := state.Status.Common(); st.Phase != object.Running && st.Phase != object.Idle {
		return &silent{fmt.Sprintf("model %s is %s and answers nothing: %s (see oscine describe model %s)", model, st.Phase, cmp.Or(firstLine(st.Message), "no reason is known yet"), model), refusal}
	}
	if m, ok := state.Object.(*object.Model); ok && m.Spec.ServedAs != "" && m.Spec.ServedAs != model && answered(refusal) == http.StatusNotFound {
		return &silent{fmt.Sprintf("model %s is served as %s: ask for %[2]s", model, m.Spec.ServedAs), refusal}
	}
	return hint
}

// silent is a refusal in other words.
type silent struct {
	text    string
	refusal error
}

// Error returns those words.
func (s *silent) Error() string { return s.text }

// Unwrap returns the refusal.
func (s *silent) Unwrap() error { return s.refusal }

func inferenceOf(node *client.Client) *oip.Client {
	web, address := node.HTTP()
	return &oip.Client{HTTP: web, URL: address}
}
