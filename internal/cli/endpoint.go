package cli

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/serve/oip"
)

// tokenVariable holds the token of an endpoint, out of the sight of other users,
// who can read arguments.
const tokenVariable = "OSCINE_TOKEN"

// tokenHint is the next step where a server wants another token.
const tokenHint = "give it by $" + tokenVariable + " or --token"

// endpoint are the flags of commands that ask a model: the context's node answers,
// or another server.
type endpoint struct{ url, token string }

func (e *endpoint) addFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&e.url, "url", "", "a server of the Open Inference Protocol or OpenAI's API, instead of the context's node")
	f.StringVar(&e.token, "token", "", "bearer token for --url (default $"+tokenVariable+")")
}

// server is the context's node, or that of --url.
func (e *endpoint) server(env *Env) (*oip.Client, error) {
	if e.url != "" {
		return e.other()
	}
	if e.token != "" {
		return nil, usageError{errors.New("--token is for --url: the context's node recognises you by your certificate")}
	}
	node, err := env.Client()
	if err != nil {
		return nil, err
	}
	return inferenceOf(node), nil
}

// other is the server of --url.
func (e *endpoint) other() (*oip.Client, error) {
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
	return &oip.Client{HTTP: http.DefaultClient, URL: strings.TrimSuffix(e.url, "/"), Token: token}, nil
}

func inferenceOf(node *client.Client) *oip.Client {
	web, address := node.HTTP()
	return &oip.Client{HTTP: web, URL: address}
}
