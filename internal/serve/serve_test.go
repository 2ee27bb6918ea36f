package serve

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func doRequest(t *testing.T, url, method, path string, header http.Header, body string) (int, http.Header, string) {
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
	r.ready("m")
	r.add("bad", "refuse", 0)
	if err := r.registry.WaitReady(t.Context(), "bad"); !errors.Is(err, ErrNotReady) || !strings.Contains(err.Error(), "not a model: it is a test") {
		t.Errorf("a refused model: got %v", err)
	}
	infer := "/v2/models/m/infer"
	for _, test := range []struct {
		method, path, body string
		status             int
		want               string // the whole body, or with … in front a part of it
	}{
		{"GET", "/v2", "", 200, `{"extensions":["binary_tensor_data","model_repository","schedule_policy"],"name":"oscine","version":"test"}`},
		{"GET", "/v2/health/live", "", 200, `{"live":true}`},
		{"GET", "/v2/health/ready", "", 503, `…model bad is failed: not a model: it is a test`},
		{"GET", "/v2/models/m/ready", "", 200, `{"name":"m","ready":true}`},
		{"GET", "/v2/models/m/versions/1/ready", "", 200, `{"name":"m","ready":true}`},
		{"GET", "/v2/models/m/versions/2", "", 404, `…model \"m\" is served in version \"1\", not \"2\"`},
		{"GET", "/v2/models/bad/ready", "", 503, `…not a model`},
		{"GET", "/v2/models/none", "", 404, `…no model \"none\" is served here`},
		{"GET", "/v2/models/m", "", 200, `{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,4]}],"name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[-1,4]},{"name":"batch","datatype":"INT32","shape":[]}],"platform":"onnxruntime_onnx","versions":["1"]}`},
		{"POST", "/v2/repository/index", "", 200, `[{"name":"bad","version":"1","state":"UNAVAILABLE","reason":"model bad is failed: not a model: it is a test"},{"name":"m","version":"1","state":"READY","reason":""}]`},
		{"POST", infer, `{"id":"a\"b","inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4.5]}]}`, 200,
			`{"model_name":"m","model_version":"1","id":"a\"b","outputs":[{"name":"y","datatype":"FP32","shape":[1,4],"data":[2,4,6,9]},{"name":"batch","datatype":"INT32","shape":[],"data":[1]}]}`},
		{"POST", infer, `{"inputs":[{"data":[[1,2,3,4],[5,6,7,8]],"name":"x","datatype":"FP32","shape":[2,4]}],"outputs":[{"name":"y"}]}`, 200,
			`{"model_name":"m","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[2,4],"data":[2,4,6,8,10,12,14,16]}]}`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[0,4],"datatype":"FP32","data":[]}],"outputs":[{"name":"y"}]}`, 200,
			`{"model_name":"m","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[0,4],"data":[]}]}`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}`, 400, `…input \"x\": wrong shape: got [1,3], want [-1,4]`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP64","data":[1,2,3,4]}]}`, 400, `…datatype is FP64, the model wants FP32`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[1,4],"datatype":"BYTES","data":["a"]}]}`, 400, `…datatype \"BYTES\" is not supported`},
		{"POST", infer, `{"inputs":[{"name":"z","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}`, 400, `…input \"x\" is missing (the model's inputs are x)`},
		{"POST", infer, `{"inputs":[]}`, 400, `…input \"x\" is missing`},
		{"POST", infer, `{}`, 400, `…inputs are missing`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3]}]}`, 400, `…got 3 elements, the shape needs 4`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,"a"]}]}`, 400, `…where a number should be`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}],"outputs":[{"name":"q"}]}`, 400, `…output \"q\" is not known (the model's outputs are y, batch)`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[9999,4],"datatype":"FP32","data":[1]}]}`, 400, `…send a smaller batch`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[-1,4],"datatype":"FP32","data":[1]}]}`, 400, `…shape needs`},
		{"POST", infer, `{"inputs":`, 400, `…the JSON ends where '[' should be`},
		{"POST", infer, ``, 400, `…the JSON ends`},
		{"POST", infer, `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}]}`, 400, `…needs the header Inference-Header-Content-Length`},
		{"POST", infer, strings.Repeat(" ", 2<<20), 413, `…at most 1048576 bytes`},
		{"POST", "/v2/models/bad/infer", `{}`, 503, `…not a model`},
	} {
		status, _, got := r.do(test.method, test.path, nil, test.body)
		part, partial := strings.CutPrefix(test.want, "…")
		if status != test.status || (got != test.want && !(partial && strings.Contains(got, part))) {
			t.Errorf("%s %s %.100s\n got %d %s\nwant %d %s", test.method, test.path, test.body, status, got, test.status, test.want)
		}
		if !json.Valid([]byte(got)) {
			t.Errorf("%s %s: %q is not JSON", test.method, test.path, got)
		}
	}
	if status, _, got := r.do("POST", infer, http.Header{"Content-Encoding": {"gzip"}}, "x"); status != 415 {
		t.Errorf("compressed request: got %d %s", status, got)
	}
}

func TestBinaryTensors(t *testing.T) {
	r := newRig(t)
	r.ready("m")
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

// one infers the row [first, 0, 0, 0] and returns status, 2·first and how many
// requests shared the run.
func (r *rig) one(model string, first float64) (int, float64, int, string) {
	r.Helper()
	status, _, got := r.do("POST", "/v2/models/"+model+"/infer", nil, fmt.Sprintf(`{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[%g,0,0,0]}]}`, first))
	var answer struct{ Outputs []struct{ Data []float64 } }
	if status != 200 {
		return status, 0, 0, got
	}
	if err := json.Unmarshal([]byte(got), &answer); err != nil || len(answer.Outputs) != 2 {
		r.Errorf("%s: %v", got, err)
		return status, 0, 0, got
	}
	return status, answer.Outputs[0].Data[0], int(answer.Outputs[1].Data[0]), got
}

func TestBatching(t *testing.T) {
	r := newRig(t)
	r.ready("m")
	var wg sync.WaitGroup
	var mu sync.Mutex
	largest := 0
	for i := range 40 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			first := float64(i)
			if i%10 == 0 {
				first = sloth
			}
			status, doubled, shared, text := r.one("m", first)
			if status != 200 || doubled != 2*first {
				t.Errorf("request %d: got %d %g, want %g (%s)", i, status, doubled, 2*first, text)
			}
			mu.Lock()
			largest = max(largest, shared)
			mu.Unlock()
		}()
	}
	wg.Wait()
	if largest < 2 {
		t.Error("no two of 40 concurrent requests shared a run")
	}
	if s, err := r.registry.Status("m"); err != nil || s.Requests != 40 || s.Errors != 0 || s.P50 <= 0 || s.P99 < s.P50 {
		t.Errorf("status %+v, %v", s, err)
	}
}

func TestWorkerDeath(t *testing.T) {
	r := newRig(t)
	r.ready("a")
	r.ready("b")
	if status, doubled, _, text := r.one("a", once); status != 200 || doubled != 2*once {
		t.Errorf("a request whose worker died once must be retried: got %d %g %s", status, doubled, text)
	}
	// While one client keeps killing a's worker, the other requests to a are
	// answered and b notices nothing.
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		if status, _, _, text := r.one("a", poison); status != 503 || !strings.Contains(text, "failed during the inference") {
			t.Errorf("poison: got %d %s", status, text)
		}
	}()
	for i := range 20 {
		wg.Add(2)
		go func() {
			defer wg.Done()
			if status, doubled, _, text := r.one("a", float64(i)); status != 200 || doubled != float64(2*i) {
				t.Errorf("a, request %d: got %d %g %s", i, status, doubled, text)
			}
		}()
		go func() {
			defer wg.Done()
			if status, doubled, _, text := r.one("b", float64(i)); status != 200 || doubled != float64(2*i) {
				t.Errorf("b, request %d: got %d %g %s", i, status, doubled, text)
			}
		}()
	}
	wg.Wait()
	a, errA := r.registry.Status("a")
	b, errB := r.registry.Status("b")
	if errA != nil || errB != nil || a.Restarts < 3 || b.Restarts != 0 {
		t.Errorf("restarts: a %d, want at least 3; b %d, want 0 (%v, %v)", a.Restarts, b.Restarts, errA, errB)
	}
}

func TestStuckWorkerIsKilled(t *testing.T) {
	r := newRig(t)
	r.add("m", "doubler", 200*time.Millisecond)
	if err := r.registry.WaitReady(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if status, _, _, text := r.one("m", stuck); status != 503 {
		t.Errorf("got %d %s", status, text)
	}
	if status, doubled, _, text := r.one("m", 2); status != 200 || doubled != 4 {
		t.Errorf("after the stuck request: got %d %s", status, text)
	}
}

func TestRegistry(t *testing.T) {
	r := newRig(t)
	r.ready("m")
	if err := r.registry.Add(Model{Name: "m", Starter: &Exec{}}); err == nil || !strings.Contains(err.Error(), "already served") {
		t.Errorf("a name twice: got %v", err)
	}
	if err := r.registry.Add(Model{Name: "../m", Starter: &Exec{}}); err == nil {
		t.Error("a bad name was accepted")
	}
	names := []string{}
	for _, s := range r.registry.List() {
		names = append(names, s.Name)
	}
	if diff := cmp.Diff([]string{"m"}, names); diff != "" {
		t.Error(diff)
	}
	if err := r.registry.Remove("m"); err != nil {
		t.Error(err)
	}
	if err := r.registry.Remove("m"); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed twice: got %v", err)
	}
	if status, _, _, _ := r.one("m", 1); status != 404 {
		t.Errorf("a removed model answers %d", status)
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	for i := range 1000 {
		h.observe(time.Duration(i+1) * time.Microsecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Microsecond, 0.99: 990 * time.Microsecond} {
		if got := h.quantile(q); got < want || got > want*9/8 {
			t.Errorf("quantile %g: got %v, want %v to an eighth more", q, got, want)
		}
	}
	if got := h.quantile(1); got != time.Millisecond {
		t.Errorf("quantile 1: got %v, want the longest, 1ms", got)
	}
	for d := time.Duration(1); d > 0 && d < 1<<62; d *= 3 {
		if b := bucket(d); upper(b) < d || b > 0 && d > 8 && upper(b-1) >= d {
			t.Errorf("%v lies in bucket %d up to %v", d, b, upper(b))
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"id":"1","parameters":{"binary_data_output":true},"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}],"outputs":[{"name":"y","parameters":{"binary_data":false}}]}`))
	f.Add([]byte(`{"inputs":[{"name":"\u0041","shape":[],"datatype":"BOOL","parameters":{"binary_data_size":1}}]}`))
	var r inferRequest
	f.Fuzz(func(t *testing.T, body []byte) {
		err := r.parse(body)
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%v does not wrap ErrInvalid", err)
		}
		for _, in := range r.inputs {
			if err == nil && (in.binary < 0) == (in.data == nil) {
				t.Errorf("input %q: %d binary bytes and data %q", in.name, in.binary, in.data)
			}
		}
	})
}

// What follows a model is told of its states and need not ask.
func TestChangesOfStateAreTold(t *testing.T) {
	r := newRig(t)
	told := make(chan struct{}, 1)
	change := func() {
		select {
		case told <- struct{}{}:
		default:
		}
	}
	if err := r.registry.Add(Model{Name: "m", Starter: testWorker(t.TempDir(), "doubler"), OnChange: change}); err != nil {
		t.Fatal(err)
	}
	await := func(want State) {
		t.Helper()
		for {
			s, err := r.registry.Status("m")
			if err != nil {
				t.Fatal(err)
			}
			if s.State == want {
				return
			}
			select {
			case <-told:
			case <-time.After(10 * time.Second):
				t.Fatalf("nothing is told, and the model is %s, want %s", s.State, want)
			}
		}
	}
	await(Ready)
	m, err := r.registry.model("m", "")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := m.waitConn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m.broken(conn)
	await(Waiting)
	await(Ready)
}
