package oip

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
	"oscine.dev/oscine/internal/tensor"
)

const plain = `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4.5]}]}`

func compress(t *testing.T, encoding, text string) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if encoding == "deflate" {
		w = zlib.NewWriter(&b)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestCompressedBodies(t *testing.T) {
	r := newRig(t)
	r.Ready("m")
	head := `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}],"outputs":[{"name":"y"}]}`
	for _, encoding := range []string{"gzip", "deflate", "GZIP"} {
		lower := strings.ToLower(encoding)
		for _, test := range []struct {
			name, length, body string
			status             int
			want               string
		}{
			{"JSON", "", compress(t, lower, plain), 200, `"data":[2,4,6,9]`},
			{"binary", fmt.Sprint(len(head)), compress(t, lower, head+strings.Repeat("\x00", 16)), 200, `"data":[0,0,0,0]`},
			{"cut short", "", compress(t, lower, plain)[:40], 400, "cut short"},
			{"not compressed", "", plain, 400, "cannot be read"},
			{"a bomb", "", compress(t, lower, strings.Repeat(" ", 8<<20)), 413, "at most 1048576 bytes"},
		} {
			header := http.Header{"Content-Encoding": {encoding}}
			if test.length != "" {
				header.Set(headerLength, test.length)
			}
			if status, _, got := r.do("POST", "/v2/models/m/infer", header, test.body); status != test.status || !strings.Contains(got, test.want) {
				t.Errorf("%s, %s: got %d %s, want %d %s", encoding, test.name, status, got, test.status, test.want)
			}
		}
	}
}

func TestNumbersThatJSONLacks(t *testing.T) {
	r := newRig(t)
	r.Ready("m")
	status, _, got := r.do("POST", "/v2/models/m/infer", nil, `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[NaN,-Infinity,Inf,-0]}],"outputs":[{"name":"y"}]}`)
	if want := `"data":[NaN,-Infinity,Infinity,-0]`; status != 200 || !strings.Contains(got, want) {
		t.Errorf("got %d %s, want %s", status, got, want)
	}
}

// stuckWriter is a client that reads nothing of its answer.
type stuckWriter struct {
	header  http.Header
	begun   sync.Once
	writing *sync.WaitGroup
	stop    chan struct{}
}

func (s *stuckWriter) Header() http.Header { return s.header }
func (s *stuckWriter) WriteHeader(int)     {}
func (s *stuckWriter) Write(p []byte) (int, error) {
	s.begun.Do(s.writing.Done)
	<-s.stop
	return len(p), nil
}

// More clients than a model has slots do not read their answers: others are
// answered all the same.
func TestSlowReadersHoldNoSlot(t *testing.T) {
	r := newRig(t)
	r.Ready("m")
	h := r.server.Config.Handler
	stop, writing := make(chan struct{}), new(sync.WaitGroup)
	defer close(stop)
	for range 70 {
		writing.Add(1)
		go h.ServeHTTP(&stuckWriter{header: http.Header{}, writing: writing, stop: stop}, httptest.NewRequest("POST", "/v2/models/m/infer", strings.NewReader(plain)))
	}
	writing.Wait()
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, httptest.NewRequest("POST", "/v2/models/m/infer", strings.NewReader(plain))); w.Code != http.StatusOK {
		t.Errorf("with 70 clients that do not read: %d %s", w.Code, w.Body)
	}
}

// A client that closes its connection while its request waits is not computed
// for.
func TestClientThatLeavesIsNotComputedFor(t *testing.T) {
	r := newRig(t)
	open := r.Gate("single")
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			client := &http.Client{Timeout: 300 * time.Millisecond}
			if resp, err := client.Post(r.server.URL+"/v2/models/m/infer", "", strings.NewReader(strings.Replace(plain, "[1,2,", "[666,2,", 1))); err == nil {
				resp.Body.Close()
				t.Errorf("got %d while the worker was busy", resp.StatusCode)
			}
		})
	}
	wg.Wait()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s, err := r.Registry.Status("m")
		if err != nil || time.Now().After(end) {
			t.Fatalf("%+v %v: the requests still wait", s, err)
		}
		if s.Errors == 3 {
			break
		}
	}
	open()
	if status, _, got := r.do("POST", "/v2/models/m/infer", nil, plain); status != 200 {
		t.Errorf("got %d %s", status, got)
	}
	if s, err := r.Registry.Status("m"); err != nil || s.Restarts != 0 {
		t.Errorf("%+v %v: the worker computed what nobody waits for", s, err)
	}
}

func TestStatusOfErrors(t *testing.T) {
	for err, want := range map[error]int{
		core.ErrInvalid: 400, core.ErrNotFound: 404, front.ErrSlow: 408, front.ErrTooLarge: 413, front.ErrEncoding: 415,
		core.ErrOverloaded: 429, front.ErrBusy: 429, core.ErrCanceled: 499, errdefs.ErrInternal: 500, core.ErrNotReady: 503, core.ErrExpired: 504,
	} {
		if got := front.Status(fmt.Errorf("%w: for a test", err)); got != want {
			t.Errorf("%v: got %d, want %d", err, got, want)
		}
	}
}

func TestOutputsThatJSONCannotHoldAreRefusedBefore(t *testing.T) {
	specs := []tensor.Spec{{Name: "y", Type: tensor.FP32}, {Name: "h", Type: tensor.FP16}}
	for text, want := range map[string]string{
		`{"inputs":[]}`:                                                            "binary_data",
		`{"inputs":[],"outputs":[{"name":"h"}]}`:                                   "binary_data",
		`{"inputs":[],"outputs":[{"name":"y"}]}`:                                   "",
		`{"inputs":[],"parameters":{"binary_data_output":true}}`:                   "",
		`{"inputs":[],"outputs":[{"name":"h","parameters":{"binary_data":true}}]}`: "",
	} {
		var c call
		if err := c.request.parse([]byte(text)); err != nil {
			t.Fatal(err)
		}
		err := c.checkOutputs(specs)
		if want == "" && err != nil || want != "" && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

// A request whose JSON is the last one again is read as if it were the first.
func TestJSONAgain(t *testing.T) {
	binary := `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}],"parameters":{"binary_data_output":true}}`
	placed := `{"id":"7","inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"shared_memory_region":"r","shared_memory_byte_size":8}}],"outputs":[{"name":"y","parameters":{"shared_memory_region":"r","shared_memory_byte_size":8}}]}`
	numbers := `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}`
	var c call
	for i, text := range []string{binary, binary, numbers, numbers, binary, placed, placed, "{", placed, binary, strings.Replace(binary, `"x"`, `"z"`, 1), binary} {
		var fresh call
		c.body, fresh.body = []byte(text), []byte(text)
		got, want := c.parse(), fresh.parse()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%d: got %v, want %v", i, got, want)
		}
		if want == nil && fmt.Sprintf("%+v", c.request) != fmt.Sprintf("%+v", fresh.request) {
			t.Errorf("%d: got %+v, want %+v", i, c.request, fresh.request)
		}
		if known := len(c.known) > 0; known != (want == nil && text != numbers) {
			t.Errorf("%d: %s is kept: %v", i, text, known)
		}
	}
}
