package access

import (
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/serve"
	"oscine.dev/oscine/internal/serve/core"
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

// A token that is for one model tells nothing of the others: no list names them,
// and what is said of each is refused, as for a model that there is not.
func TestTokensBoundWhatIsSeen(t *testing.T) {
	r := servetest.New(t)
	r.Ready("mine")
	r.Ready("secret")
	r.Serve(core.Model{Name: "secret-fails", Instances: core.One(servetest.Worker(t.TempDir(), "refuse"))})
	_ = r.Registry.WaitReady(t.Context(), "secret-fails")
	tokens, err := OpenTokens(filepath.Join(t.TempDir(), "tokens.json"))
	if err != nil {
		t.Fatal(err)
	}
	token := create(t, tokens, Token{Name: "limited", Models: []string{"mine"}})
	h := tokens.Guard(true, NewFair().Handler(serve.NewHandler(r.Registry, serve.Options{})))
	do := func(method, path string) (int, string) {
		q := httptest.NewRequest(method, path, strings.NewReader("{}"))
		q.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, q)
		return w.Code, w.Body.String()
	}
	for _, list := range []string{"GET /v1/models", "GET /v2/models/stats", "POST /v2/repository/index", "GET /v2/health/ready"} {
		method, path, _ := strings.Cut(list, " ")
		status, text := do(method, path)
		if status != 200 || strings.Contains(text, "secret") || path != "/v2/health/ready" && !strings.Contains(text, "mine") {
			t.Errorf("%s: got %d %s, want mine only", list, status, text)
		}
	}
	for _, of := range []string{
		"GET /v2/models/NAME", "GET /v2/models/NAME/config", "GET /v2/models/NAME/stats", "GET /v2/models/NAME/ready", "GET /v2/models/NAME/trace/setting", "GET /v2/models/NAME/versions/1",
		"POST /v2/models/NAME/infer", "POST /v2/repository/models/NAME/load", "GET /v1/models/NAME", "POST /v1/models/NAME:predict",
	} {
		method, path, _ := strings.Cut(of, " ")
		for _, name := range []string{"secret", "none"} {
			if status, text := do(method, strings.Replace(path, "NAME", name, 1)); status != 403 || !strings.Contains(text, "not for model") {
				t.Errorf("%s of %s: got %d %s, want 403", of, name, status, text)
			}
		}
		if status, text := do(method, strings.Replace(path, "NAME", "mine", 1)); status == 403 {
			t.Errorf("%s of mine: got %d %s", of, status, text)
		}
	}
	if used := tokens.clients[sha256.Sum256([]byte(token))].usage(); used.Refused != 20 {
		t.Errorf("%d requests counted as refused, want 20", used.Refused)
	}
}
