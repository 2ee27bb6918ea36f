package oip

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
	"oscine.dev/oscine/internal/serve/servetest"
)

func TestMain(m *testing.M) { servetest.Main(m) }

// rig is a registry behind an HTTP server.
type rig struct {
	*servetest.Rig
	server *httptest.Server
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{Rig: servetest.New(t)}
	r.server = httptest.NewServer(front.Handler(r.Registry, front.Options{MaxBodyBytes: 1 << 20}, []front.Front{Front()}))
	t.Cleanup(r.server.Close)
	return r
}

func (r *rig) do(method, path string, header http.Header, body string) (int, http.Header, string) {
	r.Helper()
	return doRequest(r.TB, r.server.URL, method, path, header, body)
}

func doRequest(t testing.TB, url, method, path string, header http.Header, body string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(got)
}

func TestProtocol(t *testing.T) {
	r := newRig(t)
	r.Ready("m")
	r.Serve(core.Model{Name: "bad", Instances: core.One(servetest.Worker(t.TempDir(), "refuse"))})
	if err := r.Registry.WaitReady(t.Context(), "bad"); !errors.Is(err, core.ErrNotReady) || !strings.Contains(err.Error(), "not a model: it is a test") {
		t.Errorf("a refused model: got %v", err)
	}
	infer := "/v2/models/m/infer"
	for _, test := range []struct {
		method, path, body string
		status             int
		want               string // the whole body, or with … in front a part of it
	}{
		{"GET", "/v2", "", 200, `{"name":"oscine","version":"devel","extensions":["binary_tensor_data","classification","model_configuration","schedule_policy","sequence","statistics"]}`},
		{"GET", "/v2/health/live", "", 200, `{"live":true}`},
		{"GET", "/v2/health/ready", "", 503, `…model bad is failed: not a model: it is a test`},
		{"GET", "/v2/models/m/ready", "", 200, `{"name":"m","ready":true}`},
		{"GET", "/v2/models/m/versions/1/ready", "", 200, `{"name":"m","ready":true}`},
		{"GET", "/v2/models/m/versions/2", "", 404, `…model \"m\" is served in version \"1\", not \"2\"`},
		{"GET", "/v2/models/bad/ready", "", 503, `…not a model`},
		{"GET", "/v2/models/none", "", 404, `…no model \"none\" is served here`},
		{"GET", "/v2/models/m", "", 200, `{"name":"m","versions":["1"],"platform":"doubler_test","inputs":[{"name":"x","datatype":"FP32","shape":[-1,4]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1,4]},{"name":"batch","datatype":"INT32","shape":[-1]}]}`},
		{"POST", "/v2/repository/index", "", 200, `[{"name":"bad","version":"1","state":"UNAVAILABLE","reason":"model bad is failed: not a model: it is a test"},{"name":"m","version":"1","state":"READY","reason":""}]`},
		{"POST", infer, `{"id":"a\"b","inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4.5]}]}`, 200,
			`{"model_name":"m","model_version":"1","id":"a\"b","outputs":[{"name":"y","datatype":"FP32","shape":[1,4],"data":[2,4,6,9]},{"name":"batch","datatype":"INT32","shape":[1],"data":[1]}]}`},
		{"POST", infer, `{"inputs":[{"data":[[1,2,3,4],[5,6,7,8]],"name":"x","datatype":"FP32","shape":[2,4]}],"outputs":[{"name":"y"}]}`, 200,
			`{"model_name":"m","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[2,4],"data":[2,4,6,8,10,12,14,16]}]}`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[0,4],"datatype":"FP32","data":[]}],"outputs":[{"name":"y"}]}`, 200,
			`{"model_name":"m","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[0,4],"data":[]}]}`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}`, 400, `…input \"x\": wrong shape: got [1,3], want [-1,4]`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP64","data":[1,2,3,4]}]}`, 400, `…datatype is FP64, the model wants FP32`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[1,1],"datatype":"BYTES","data":["a"]}]}`, 400, `…datatype is BYTES, the model wants FP32`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[1,4],"datatype":"BYTES","data":["a",["\u0041"]]}]}`, 400, `…got 2 elements, the shape needs 4`},
		{"GET", "/v2/models/m/config", "", 200, `{"name":"m","platform":"doubler_test","max_batch_size":0,"input":[{"name":"x","data_type":"TYPE_FP32","dims":[-1,4]}],"output":[{"name":"y","data_type":"TYPE_FP32","dims":[-1,4]},{"name":"batch","data_type":"TYPE_INT32","dims":[-1]}],"backend":"doubler","model_transaction_policy":{"decoupled":false}}`},
		{"GET", "/v2/models/m/versions/1/stats", "", 200, `…"inference_count":3,`},
		{"GET", "/v2/models/stats", "", 200, `…{"model_stats":[{"name":"bad",`},
		{"GET", "/v2/models/none/stats", "", 404, `…no model`},
		{"POST", "/v2/repository/index", `{"ready":true}`, 200, `[{"name":"m","version":"1","state":"READY","reason":""}]`},
		{"POST", "/v2/repository/models/m/load", `{}`, 200, `{}`},
		{"POST", "/v2/repository/models/m/load", `{"parameters":{"config":"{}"}}`, 400, `…change the model's manifest`},
		{"POST", "/v2/repository/models/none/load", ``, 404, `…operators decide`},
		{"POST", "/v2/repository/models/bad/load", ``, 503, `…not a model`},
		{"POST", "/v2/repository/models/m/unload", `{}`, 503, `…operators decide`},
		{"GET", "/v2/systemsharedmemory/status", "", 200, `[]`},
		{"POST", "/v2/systemsharedmemory/region/r/register", `{"key":"/secret","offset":0,"byte_size":8}`, 501, `…not supported`},
		{"POST", "/v2/systemsharedmemory/unregister", "", 200, `{}`},
		{"GET", "/v2/trace/setting", "", 200, `{"trace_count":"0","trace_level":["OFF"],"trace_rate":"0"}`},
		{"POST", "/v2/models/m/trace/setting", `{"trace_level":["TIMESTAMPS"]}`, 501, `…not traced`},
		{"GET", "/v2/logging", "", 200, `{"log_error":true,"log_info":true,"log_warning":true}`},
		{"POST", "/v2/logging", `{"log_info":false}`, 501, `…do not change the node's log`},
		{"PUT", "/v2/logging", `{}`, 405, `…takes GET or POST, not PUT`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[2,4],"datatype":"FP32","data":[1,2,3,4,8,7,7,5]}],"outputs":[{"name":"y","parameters":{"classification":2}}]}`, 200,
			`{"model_name":"m","model_version":"1","outputs":[{"name":"y","datatype":"BYTES","shape":[2,2],"data":["8.000000:3","6.000000:2","16.000000:0","14.000000:1"]}]}`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}],"outputs":[{"name":"y","parameters":{"classification":-1}}]}`, 400, `…choose how many classes`},
		{"POST", infer, `{"parameters":{"sequence_id":0,"sequence_start":false},"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}`, 200, `…[2,4,6,8]`},
		{"POST", infer, `{"inputs":[{"name":"z","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}`, 400, `…input \"x\" is missing (the model's inputs are x)`},
		{"POST", infer, `{"inputs":[]}`, 400, `…input \"x\" is missing`},
		{"POST", infer, `{}`, 400, `…inputs are missing`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3]}]}`, 400, `…got 3 elements, the shape needs 4`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,"a"]}]}`, 400, `…not a number at byte`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}],"outputs":[{"name":"q"}]}`, 400, `…output \"q\" is not known (the model's outputs are y, batch)`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[20000000,4],"datatype":"FP32","data":[1]}]}`, 400, `…spec.maxRequest`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[-1,4],"datatype":"FP32","data":[1]}]}`, 400, `…shape needs`},
		{"POST", infer, `{"inputs":`, 400, `…the JSON ends where '[' should be`},
		{"POST", infer, ``, 400, `…the JSON ends`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}]}`, 400, `…needs the header Inference-Header-Content-Length`},
		{"POST", infer, strings.Repeat(" ", 2<<20), 413, `…at most 1048576 bytes`},
		{"POST", "/v2/models/bad/infer", `{}`, 503, `…not a model`},
		{"POST", infer, `{"id":null,"parameters":null,"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":null,"data":[1,2,3,4]}],"outputs":null}`, 200, `…"data":[2,4,6,8]`},
		{"POST", infer, `{"parameters":{"binary_data_output":null,"timeout":null,"priority":null},"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}],"outputs":[{"name":"y","parameters":{"binary_data":null}}]}`, 200, `…"data":[2,4,6,8]`},
		{"POST", infer, `{"inputs":null}`, 400, `…inputs are missing`},
		{"POST", infer, `{"inputs":[{"name":null,"shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}`, 400, `…has no name`},
		{"GET", "/v2/nothing/here", "", 404, `…nothing is served at /v2/nothing/here`},
		{"POST", "/v2/health/live", "", 405, `…takes GET, not POST`},
		{"GET", infer, "", 405, `…takes POST, not GET`},
	} {
		status, _, got := r.do(test.method, test.path, nil, test.body)
		part, partial := strings.CutPrefix(test.want, "…")
		if status != test.status || (got != test.want && !(partial && strings.Contains(got, part))) {
			t.Errorf("%s %s %.100s\n got %d %s\nwant %d %s", test.method, test.path, test.body, status, got, test.status, test.want)
		}
		var failed struct{ Error string }
		if !json.Valid([]byte(got)) || status >= 400 && (json.Unmarshal([]byte(got), &failed) != nil || failed.Error == "") {
			t.Errorf("%s %s: %q is not the protocol's JSON", test.method, test.path, got)
		}
	}
	if status, _, got := r.do("POST", infer, http.Header{"Content-Encoding": {"br"}}, "x"); status != 415 {
		t.Errorf("a compression that is not known: got %d %s", status, got)
	}
}

func TestBinaryTensors(t *testing.T) {
	r := newRig(t)
	r.Ready("m")
	for _, rows := range []int{1, 3, 200, 2000} { // the last is beyond a slot's first rows
		raw := make([]byte, 16*rows)
		for i := range 4 * rows {
			binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(float32(i)))
		}
		head := fmt.Sprintf(`{"inputs":[{"name":"x","shape":[%d,4],"datatype":"FP32","parameters":{"binary_data_size":%d}}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]}`, rows, len(raw))
		status, header, got := r.do("POST", "/v2/models/m/infer", http.Header{headerLength: {fmt.Sprint(len(head))}}, head+string(raw))
		if status != 200 {
			t.Fatalf("%d rows: %d %s", rows, status, got)
		}
		var n int
		if _, err := fmt.Sscan(header.Get(headerLength), &n); err != nil || n > len(got) {
			t.Fatalf("%d rows: header %s is %q", rows, headerLength, header.Get(headerLength))
		}
		var answer struct {
			Outputs []struct{ Parameters map[string]int }
		}
		if err := json.Unmarshal([]byte(got[:n]), &answer); err != nil || len(answer.Outputs) != 1 || answer.Outputs[0].Parameters["binary_data_size"] != len(raw) {
			t.Fatalf("%d rows: %s (%v)", rows, got[:n], err)
		}
		for i := range 4 * rows {
			if f := math.Float32frombits(binary.LittleEndian.Uint32([]byte(got[n+4*i:]))); f != 2*float32(i) {
				t.Fatalf("%d rows: element %d is %g, want %g", rows, i, f, 2*float32(i))
			}
		}
	}
	head := `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":15}}]}`
	status, _, got := r.do("POST", "/v2/models/m/infer", http.Header{headerLength: {fmt.Sprint(len(head))}}, head+strings.Repeat("x", 15))
	if status != 400 || !strings.Contains(got, "binary_data_size is 15, shape [1,4] of FP32 needs 16") {
		t.Errorf("wrong size: got %d %s", status, got)
	}
	status, _, got = r.do("POST", "/v2/models/m/infer", http.Header{headerLength: {fmt.Sprint(len(head))}}, head)
	if status != 400 || !strings.Contains(got, "15 of binary data are announced") {
		t.Errorf("missing data: got %d %s", status, got)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"id":"1","parameters":{"binary_data_output":true},"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}],"outputs":[{"name":"y","parameters":{"binary_data":false}}]}`))
	f.Add([]byte(`{"inputs":[{"name":"\u0041","shape":[],"datatype":"BOOL","parameters":{"binary_data_size":1}}]}`))
	var r inferRequest
	f.Fuzz(func(t *testing.T, body []byte) {
		err := r.parse(body)
		if err != nil && !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%v does not wrap core.ErrInvalid", err)
		}
		for _, in := range r.inputs {
			if err == nil && (in.binary < 0) == (in.data == nil) {
				t.Errorf("input %q: %d binary bytes and data %q", in.name, in.binary, in.data)
			}
		}
	})
}

// FuzzBody reads whole requests, JSON and binary tensors, as they come.
func FuzzBody(f *testing.F) {
	head := `{"inputs":[{"name":"x","shape":[1,2],"datatype":"INT8","parameters":{"binary_data_size":2}},{"name":"z","shape":[],"datatype":"BOOL","data":[true]}]}`
	f.Add([]byte(head+"ab"), len(head), "")
	f.Add([]byte(plain), -1, "")
	f.Add([]byte(plain), -1, "gzip")
	options := make(chan front.Options, 1)
	front.Handler(core.NewRegistry(), front.Options{MaxBodyBytes: 1 << 16}, []front.Front{{Name: "options", Routes: []string{"/"}, New: func(_ *core.Registry, o front.Options) http.Handler {
		options <- o
		return http.NotFoundHandler()
	}}})
	o := <-options
	f.Fuzz(func(t *testing.T, text []byte, length int, encoding string) {
		r := httptest.NewRequest("POST", "/", bytes.NewReader(text))
		if length >= 0 {
			r.Header.Set(headerLength, fmt.Sprint(length))
		}
		r.Header.Set("Content-Encoding", encoding)
		body, err := o.Body(httptest.NewRecorder(), r)
		var c call
		if err == nil {
			defer body.Close()
			err = c.readHeader(&body, r)
		}
		if err == nil {
			err = c.request.checkBinary()
		}
		if err == nil {
			err = c.readBinary(&body)
		}
		if err != nil {
			if code := front.Status(err); code < 400 || code >= 500 {
				t.Errorf("%v is the node's fault", err)
			}
			return
		}
		for i := range c.request.inputs {
			in := &c.request.inputs[i]
			n, err := in.shape.Bytes(in.kind)
			if err != nil || n > 1<<20 {
				continue
			}
			if err := in.Put(make([]byte, n)); in.binary >= 0 && err != nil {
				t.Errorf("binary input %q: %v", in.name, err)
			}
		}
	})
}
