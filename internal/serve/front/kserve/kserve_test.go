package kserve

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
	"oscine.dev/oscine/internal/serve/servetest"
	"oscine.dev/oscine/internal/tensor"
)

func TestMain(m *testing.M) { servetest.Main(m) }

func TestProtocol(t *testing.T) {
	r := servetest.New(t)
	r.Ready("m")
	r.Serve(core.Model{Name: "bad", Instances: core.One(servetest.Worker(t.TempDir(), "refuse"))})
	_ = r.Registry.WaitReady(t.Context(), "bad")
	h := front.Handler(r.Registry, front.Options{MaxBodyBytes: 1 << 20}, []front.Front{Front()})
	const predict = "/v1/models/m:predict"
	for _, test := range []struct {
		method, path, body string
		status             int
		want               string // the whole body, or with … in front a part of it
	}{
		{"POST", predict, `{"instances":[[1,2,3,4],[5,6,7,8.5]]}`, 200, `{"predictions":[{"y":[2,4,6,8],"batch":2},{"y":[10,12,14,17],"batch":2}]}`},
		{"POST", predict, `{"signature_name":"serving_default", "instances" : [ {"x" : [1, 2,3,4 ] } ]}`, 200, `{"predictions":[{"y":[2,4,6,8],"batch":1}]}`},
		{"POST", predict, `{"inputs":{"x":[[1,2,3,4]]}}`, 200, `{"outputs":{"y":[[2,4,6,8]],"batch":[1]}}`},
		{"POST", predict, `{"inputs":[[1,2,3,4]]}`, 200, `{"outputs":{"y":[[2,4,6,8]],"batch":[1]}}`},
		{"POST", predict, `{"instances":[[1,2,3],[5,6,7,8]]}`, 400, `…different lengths`},
		{"POST", predict, `{"instances":[[1,2,3,[4]]]}`, 400, `…different lengths`},
		{"POST", predict, `{"instances":[[[1],2,3,4]]}`, 400, `…different lengths`},
		{"POST", predict, `{"instances":[[1,2,3]]}`, 400, `…wrong shape: got [1,3], want [-1,4]`},
		{"POST", predict, `{"instances":[["a","b","c","d"]]}`, 400, `…not a number`},
		{"POST", predict, `{"instances":[{"x":[1,2,3,4]},{"z":[1,2,3,4]}]}`, 400, `…instance 1: input \"z\" is not known`},
		{"POST", predict, `{"instances":[{"x":[1,2,3,4]},{}]}`, 400, `…instance 1 does not have the same inputs as the first`},
		{"POST", predict, `{"instances":[{"x":[1,2,3,4],"x":[1,2,3,4]}]}`, 400, `…input \"x\" is given twice`},
		{"POST", predict, `{"instances":[{}]}`, 400, `…input \"x\" is missing`},
		{"POST", predict, `{"instances":[{"x":[1,2,3,4]},[1,2,3,4]]}`, 400, `…instance 1 is not of the same kind as the first`},
		{"POST", predict, `{"instances":[{"z":[1,2,3,4]}]}`, 400, `…input \"z\" is not known`},
		{"POST", predict, `{"instances":[{"x":[1,2,3,4],"z":1}]}`, 400, `…input \"z\" is not known`},
		{"POST", predict, `{"instances":[]}`, 400, `…instances is empty`},
		{"POST", predict, `{"instances":7}`, 400, `…instances must be a list`},
		{"POST", predict, `{}`, 400, `…either instances`},
		{"POST", predict, `{"instances":[[1,2,3,4]],"inputs":[[1,2,3,4]]}`, 400, `…either instances`},
		{"POST", predict, `[]`, 400, `…not a JSON object`},
		{"POST", predict, strings.Repeat(" ", 2<<20), 413, `…at most 1048576 bytes`},
		{"POST", "/v1/models/none:predict", `{}`, 404, `…no model`},
		{"POST", "/v1/models/bad:predict", `{}`, 503, `…not a model`},
		{"POST", "/v1/models/m:explain", `{}`, 404, `…NAME:predict`},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(test.method, test.path, strings.NewReader(test.body)))
		got := w.Body.String()
		part, partial := strings.CutPrefix(test.want, "…")
		if w.Code != test.status || got != test.want && !(partial && strings.Contains(got, part)) {
			t.Errorf("%s %s %.100s\n got %d %s\nwant %d %s", test.method, test.path, test.body, w.Code, got, test.status, test.want)
		}
		if w.Code >= 500 && w.Code != http.StatusServiceUnavailable || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s: %s", test.body, got)
		}
	}
}

// held starts a worker once begin is closed.
type held struct {
	core.Starter
	begin chan struct{}
}

func (h *held) Start(ctx context.Context) (core.Worker, error) {
	<-h.begin
	return h.Starter.Start(ctx)
}

// Requests wait while their model is replaced by one that starts behind it.
func TestRequestsWaitForAReplacement(t *testing.T) {
	r := servetest.New(t)
	r.Ready("m")
	next := &held{servetest.Worker(t.TempDir(), "doubler"), make(chan struct{})}
	replaced := make(chan error, 1)
	go func() {
		replaced <- r.Registry.ReplaceInTurn(t.Context(), core.Model{Name: "m", Instances: core.One(next)})
	}()
	for {
		if s, err := r.Registry.Status("m"); err != nil || s.State != core.Ready {
			break
		}
		time.Sleep(time.Millisecond)
	}
	h := front.Handler(r.Registry, front.Options{MaxBodyBytes: 1 << 20}, []front.Front{Front()})
	time.AfterFunc(50*time.Millisecond, func() { close(next.begin) })
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/v1/models/m:predict", strings.NewReader(`{"instances":[[1,2,3,4]]}`)))
	if w.Code != http.StatusOK {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if err := <-replaced; err != nil {
		t.Error(err)
	}
}

// Byte strings are texts, or encoded in base64.
func TestStrings(t *testing.T) {
	specs := []tensor.Spec{{Name: "t", Type: tensor.Bytes, Shape: tensor.Shape{-1}}}
	p, err := parse([]byte(`{"instances":["a\"b",{"b64":"/w=="},"\u0041"]}`), specs)
	if err != nil {
		t.Fatal(err)
	}
	want := "\x03\x00\x00\x00a\"b\x01\x00\x00\x00\xff\x01\x00\x00\x00A"
	if got := string(p.inputs[0].Data.(core.Bytes)); got != want || p.inputs[0].Shape.String() != "[3]" {
		t.Errorf("got %q of shape %s", got, p.inputs[0].Shape)
	}
	out := core.Output{Name: "t", Type: tensor.Bytes, Shape: tensor.Shape{3, 1}, Data: []byte("\x01\x00\x00\x00a\x00\x00\x00\x00\x01\x00\x00\x00b")}
	got, err := p.answer([]core.Output{out})
	if err != nil || string(got) != `{"predictions":[["a"],[""],["b"]]}` {
		t.Errorf("got %s, %v", got, err)
	}
}

// Numbers among texts would let the elements of one request be taken from
// another that shares the run.
func TestNumbersAreNoStrings(t *testing.T) {
	specs := []tensor.Spec{{Name: "t", Type: tensor.Bytes, Shape: tensor.Shape{-1}}}
	if _, err := parse([]byte(`{"instances":["abcd",1]}`), specs); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

// Brackets without an element between them cost nothing in a tensor.
func TestEmptyOutputs(t *testing.T) {
	p := predict{rows: -1}
	out := core.Output{Name: "t", Type: tensor.FP32, Shape: tensor.Shape{2, 0}}
	if got, err := p.answer([]core.Output{out}); err != nil || string(got) != `{"outputs":[[],[]]}` {
		t.Errorf("got %s, %v", got, err)
	}
	out.Shape = tensor.Shape{1 << 30, 0}
	if _, err := p.answer([]core.Output{out}); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

// FuzzParse reads requests as they come.
func FuzzParse(f *testing.F) {
	for _, text := range []string{`{"instances":[[1,2],[3,4]]}`, `{"instances":[{"x":[1,2],"t":"a"}]}`, `{"inputs":{"x":[[1]],"t":[{"b64":"AA=="}]}}`, `{"instances":[[],[]]}`} {
		f.Add([]byte(text))
	}
	for _, specs := range [][]tensor.Spec{{{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{-1, 2}}}} {
		f.Fuzz(func(t *testing.T, text []byte) {
			p, err := parse(text, specs)
			if err != nil {
				if !errors.Is(err, core.ErrInvalid) {
					t.Errorf("%v is not the client's fault", err)
				}
				return
			}
			n, err := p.inputs[0].Shape.Bytes(tensor.FP32)
			if err != nil || n > 1<<16 {
				return
			}
			_ = p.inputs[0].Data.Put(make([]byte, n)) // must not panic
			_, err = parse(text, append(specs, tensor.Spec{Name: "t", Type: tensor.Bytes, Shape: tensor.Shape{-1}}))
			if err != nil && !errors.Is(err, core.ErrInvalid) {
				t.Errorf("%v is not the client's fault", err)
			}
		})
	}
}

func TestTimeoutHeader(t *testing.T) {
	r := servetest.New(t)
	r.Ready("m")
	h := front.Handler(r.Registry, front.Options{}, []front.Front{Front()})
	for value, want := range map[string]int{"0.000001": 504, "soon": 400, "60": 200} {
		w, q := httptest.NewRecorder(), httptest.NewRequest("POST", "/v1/models/m:predict", strings.NewReader(`{"instances":[[1,2,3,4]]}`))
		q.Header.Set("X-Request-Timeout", value)
		if h.ServeHTTP(w, q); w.Code != want {
			t.Errorf("%s: got %d %s, want %d", value, w.Code, w.Body, want)
		}
	}
}
