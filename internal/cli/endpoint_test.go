package cli

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// tokenServer answers who shows the token tok-1.
func tokenServer(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
	}))
	t.Cleanup(s.Close)
	return s.URL
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
			{"", "", 1, "it needs a token: give it by $OSCINE_TOKEN or --token"},
			{"tok-2", "tok-1", 1, "it needs a token"},
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
