package access

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/serve"
	"oscine.dev/oscine/internal/serve/servetest"
)

func TestMain(m *testing.M) { servetest.Main(m) }

// Whatever the protocol, a token that is not for a model gets no answer of it.
func TestTokensBoundEveryProtocol(t *testing.T) {
	r := servetest.New(t)
	r.Ready("m")
	tokens, err := OpenTokens(filepath.Join(t.TempDir(), "tokens.json"))
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string]string{
		"for it":      create(t, tokens, Token{Name: "for-it", Models: []string{"m"}}),
		"for another": create(t, tokens, Token{Name: "for-another", Models: []string{"other"}}),
		"used up":     create(t, tokens, Token{Name: "used-up", Rate: 1e-3}),
	}
	h := tokens.Guard(true, NewFair().Handler(serve.NewHandler(r.Registry, serve.Options{})))
	// A ModelInferRequest: model m, input x of one row, and its elements.
	const message = "\x0a\x01m\x2a\x0d\x0a\x01x\x12\x04FP32\x1a\x02\x01\x04\x3a\x10" + "\x00\x00\x80\x3f\x00\x00\x80\x3f\x00\x00\x80\x3f\x00\x00\x80\x3f"
	for name, ask := range map[string]func() *http.Request{
		"OIP over HTTP": func() *http.Request {
			return httptest.NewRequest("POST", "/v2/models/m/infer", strings.NewReader(`{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}`))
		},
		"OIP over gRPC": func() *http.Request {
			q := httptest.NewRequest("POST", "/inference.GRPCInferenceService/ModelInfer", strings.NewReader("\x00\x00\x00\x00"+string(rune(len(message)))+message))
			q.ProtoMajor = 2
			q.Header.Set("Content-Type", "application/grpc")
			return q
		},
		"KServe v1": func() *http.Request {
			return httptest.NewRequest("POST", "/v1/models/m:predict", strings.NewReader(`{"instances":[[1,2,3,4]]}`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			do := func(secret string) *httptest.ResponseRecorder {
				q := ask()
				q.Header.Set("Authorization", "Bearer "+secrets[secret])
				w := httptest.NewRecorder()
				h.ServeHTTP(w, q)
				if status := w.Header().Get("Grpc-Status") + w.Header().Get(http.TrailerPrefix+"Grpc-Status"); status != "" {
					w.Code = map[string]int{"0": 200, "7": 403, "8": 429}[status]
				}
				return w
			}
			if w := do("for it"); w.Code != 200 {
				t.Errorf("the right token: %d %v %s", w.Code, w.Header(), w.Body)
			}
			if w := do("for another"); w.Code != 403 {
				t.Errorf("another model's: %d %v %s", w.Code, w.Header(), w.Body)
			}
			do("used up")
			w := do("used up")
			if again := w.Header().Get("Retry-After") + w.Header().Get("Grpc-Retry-Pushback-Ms"); w.Code != 429 || again == "" {
				t.Errorf("beyond its rate: %d %v %s", w.Code, w.Header(), w.Body)
			}
		})
	}
}
