package cli

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	pb "oscine.dev/oscine/internal/api/oscinepb"
)

// tokenServer answers who shows the token tok-1.
func tokenServer(t *testing.T) string {
	s := httptest.NewServer(tokenHandler())
	t.Cleanup(s.Close)
	return s.URL
}

func tokenHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch chat := r.URL.Path == "/v1/chat/completions"; {
		case r.Header.Get("Authorization") != "Bearer tok-1" && chat:
			w.WriteHeader(401)
			io.WriteString(w, `{"error":{"message":"it needs a token"}}`)
		case r.Header.Get("Authorization") != "Bearer tok-1":
			w.WriteHeader(401)
			io.WriteString(w, `{"error":"it needs a token"}`)
		case chat:
			io.WriteString(w, "data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
		case r.Method == http.MethodPost:
			io.WriteString(w, `{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":[1]}]}`)
		default:
			io.WriteString(w, `{"name":"m","inputs":[{"name":"x","datatype":"FP32","shape":[1,4]}]}`)
		}
	})
}

// A server with TLS is trusted by --ca, and one that is asked without TLS is told
// from one that refuses.
func TestEndpointWithTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(tokenHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	ca := writeTemp(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	request := writeTemp(t, `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}`)
	t.Setenv(tokenVariable, "tok-1")
	for _, command := range [][]string{
		{"infer", "m", "-f", request},
		{"chat", "m", "Hi"},
		{"bench", "serve", "m", "--warmup", "0", "--count", "3"},
	} {
		for _, test := range []struct {
			flags  []string
			status int
			want   string
		}{
			{[]string{"--url", s.URL, "--ca", ca}, 0, ""},
			{[]string{"--url", s.URL}, 1, "its certificate is not trusted: x509: certificate signed by unknown authority: give the authority that signed it by --ca FILE"},
			{[]string{"--url", s.URL, "--ca", request}, 2, "--ca " + request},
			{[]string{"--url", s.URL, "--ca", ca + "x"}, 3, "x: there is no such file"},
			{[]string{"--ca", ca}, 2, "--ca is for --url"},
			{[]string{"--url", strings.Replace(s.URL, "https", "http", 1)}, 2, "speaks TLS: write --url " + s.URL},
			{[]string{"--url", strings.Replace(tokenServer(t), "http", "https", 1)}, 2, "speaks plain HTTP: write --url http://"},
			{[]string{"--url", "https://127.0.0.1:1"}, 7, "https://127.0.0.1:1 does not answer"},
		} {
			args := append(command[:len(command):len(command)], test.flags...)
			if status, _, errOut := runCommand(t.Context(), args...); status != test.status || !strings.Contains(errOut, test.want) {
				t.Errorf("%q: exit status %d, want %d: %s", args, status, test.status, errOut)
			}
		}
	}
}

// The context's authority is trusted with --url too.
func TestEndpointTrustsTheContext(t *testing.T) {
	n := &fakeNode{answers: tokenHandler()}
	n.serve(t)
	t.Setenv(tokenVariable, "tok-1")
	status, out, errOut := n.command(t, "chat", "m", "Hi", "--url", "https://"+n.address)
	if status != 0 || out != "Hello\n" {
		t.Errorf("exit status %d, %q, %s", status, out, errOut)
	}
}

// A model that clients know by another name is asked for by that.
func TestModelIsServedAs(t *testing.T) {
	n := &fakeNode{objects: []*pb.Object{{
		Kind: "Model", Name: "digits-t",
		Manifest: structOf(t, `{"apiVersion":"oscine.dev/v1","kind":"Model","metadata":{"name":"digits-t"},"spec":{"source":"sha256:`+strings.Repeat("0", 64)+`","servedAs":"digits_t"}}`),
		Status:   structOf(t, `{"phase":"Running","servedAs":"digits_t"}`),
	}}}
	n.answers = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(404)
		io.WriteString(w, `{"error":"no model"}`)
	})
	n.serve(t)
	request := writeTemp(t, `{}`)
	for _, args := range [][]string{{"infer", "digits-t", "-f", request}, {"chat", "digits-t", "Hi"}, {"bench", "serve", "digits-t"}} {
		if status, _, errOut := n.command(t, args...); status != 3 || errOut != "oscine: model digits-t is served as digits_t: ask for digits_t\n" {
			t.Errorf("%q: exit status %d, %s", args, status, errOut)
		}
	}
	if _, out, errOut := n.command(t, "get", "models", "-o", "wide"); !strings.Contains(out, "SERVED AS") || !strings.Contains(out, "digits_t") {
		t.Errorf("get -o wide: %s%s", out, errOut)
	}
}

func TestTokens(t *testing.T) {
	address := tokenServer(t)
	request := writeTemp(t, `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}`)
	for _, command := range [][]string{
		{"infer", "m", "-f", request},
		{"chat", "m", "Hi"},
		{"bench", "serve", "m", "--warmup", "0", "--count", "3"},
	} {
		for _, test := range []struct {
			flag, variable string
			status         int
			want           string
		}{
			{"tok-1", "", 0, ""},
			{"", "tok-1\n", 0, ""},
			{"tok-1", "tok-2", 0, ""},
			{"", "", 5, "it needs a token: give it by $OSCINE_TOKEN or --token"},
			{"tok-2", "tok-1", 5, "it needs a token: get another token from an administrator"},
			{"tok 3", "", 2, "--token is not a token"},
			{"", "tok 3", 2, "$OSCINE_TOKEN is not a token"},
		} {
			t.Setenv(tokenVariable, test.variable)
			args := append(command[:len(command):len(command)], "--url", address)
			if test.flag != "" {
				args = append(args, "--token", test.flag)
			}
			status, out, errOut := runCommand(t.Context(), args...)
			if status != test.status || !strings.Contains(errOut, test.want) || strings.Contains(out+errOut, "tok ") {
				t.Errorf("%q, %+v: exit status %d\n%s%s", args, test, status, out, errOut)
			}
		}
		// Over the API's port the certificate counts.
		status, _, errOut := runCommand(t.Context(), append(command[:len(command):len(command)], "--token", "tok-1")...)
		if status != 2 || !strings.Contains(errOut, "--token is for --url") {
			t.Errorf("%q: exit status %d, %s", command, status, errOut)
		}
	}
}

// A server that sends a client elsewhere gets it no token there.
func TestTokensStayWithTheirServer(t *testing.T) {
	got := make(chan string, 1)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Get("Authorization") }))
	defer elsewhere.Close()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1), http.StatusTemporaryRedirect)
	}))
	defer s.Close()
	_, _, errOut := runCommand(t.Context(), "chat", "m", "Hi", "--url", s.URL, "--token", "tok-1")
	select {
	case header := <-got:
		if header != "" {
			t.Errorf("the other server got %q", header)
		}
	default:
		t.Errorf("nobody asked the other server: %s", errOut)
	}
}
