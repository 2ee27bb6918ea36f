package oip

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/tensor"
)

// serveText answers every request with a fixed answer.
func serveText(t *testing.T, status int, header, body string) *Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if header != "" {
			w.Header().Set(headerLength, header)
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return &Client{HTTP: server.Client(), URL: server.URL}
}

func TestModel(t *testing.T) {
	c := serveText(t, 200, "", `{"name":"m","versions":["1","2"],"platform":"p","inputs":[{"name":"x","datatype":"FP32","shape":[-1,4]}],"outputs":[{"name":"y","datatype":"INT64","shape":[]}]}`)
	got, err := c.Model(t.Context(), "m")
	want := &Model{Name: "m", Versions: []string{"1", "2"}, Platform: "p",
		Inputs:  []tensor.Spec{{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{-1, 4}}},
		Outputs: []tensor.Spec{{Name: "y", Type: tensor.Int64, Shape: tensor.Shape{}}}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

func TestRefusals(t *testing.T) {
	for _, test := range []struct {
		status int
		body   string
		want   string
	}{
		{404, `{"error":"no such model"}`, "no such model"},
		{502, "<html>bad gateway</html>", "the server answers 502 Bad Gateway <html>bad gateway</html>"},
	} {
		err := serveText(t, test.status, "", test.body).Ready(t.Context(), "m")
		var refused *Error
		if !errors.As(err, &refused) || refused.Status != test.status || refused.Text != test.want {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
}

func TestInferAnswers(t *testing.T) {
	head := `{"outputs":[{"name":"a","datatype":"UINT8","shape":[3],"parameters":{"binary_data_size":3}},{"name":"b","datatype":"INT8","shape":[2],"data":[-1,7]}]}`
	texts := `{"outputs":[{"name":"s","datatype":"BYTES","shape":[1,2],"data":["a",""]},{"name":"t","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":6}}]}`
	got, err := serveText(t, 200, strconv.Itoa(len(texts)), texts+"\x02\x00\x00\x00hi").Infer(t.Context(), "m")
	if err != nil || len(got) != 2 || string(got[0].Data) != "\x01\x00\x00\x00a\x00\x00\x00\x00" || string(got[1].Data) != "\x02\x00\x00\x00hi" {
		t.Errorf("byte strings: %v, %v", got, err)
	}
	c := serveText(t, 200, strconv.Itoa(len(head)), head+"\x01\x02\x03")
	got, err = c.Infer(t.Context(), "m")
	want := []Tensor{
		{Spec: tensor.Spec{Name: "a", Type: tensor.Uint8, Shape: tensor.Shape{3}}, Data: []byte{1, 2, 3}},
		{Spec: tensor.Spec{Name: "b", Type: tensor.Int8, Shape: tensor.Shape{2}}, Data: []byte{0xff, 7}},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for name, test := range map[string]struct{ header, body, want string }{
		"no outputs":     {"", `{"outputs":[]}`, "it has no outputs"},
		"no JSON":        {"", `hello`, "invalid character"},
		"header too far": {"999", head, "for 150 bytes"},
		"too few bytes":  {strconv.Itoa(len(head)), head + "\x01", "1 came"},
		"cut texts":      {"", `{"outputs":[{"name":"a","datatype":"BYTES","shape":[2],"data":["a"]}]}`, "byte string 1 of 2 is cut off"},
		"huge shape":     {"", `{"outputs":[{"name":"a","datatype":"FP32","shape":[1000000,1000]}]}`, "more than"},
		"bad elements":   {"", `{"outputs":[{"name":"a","datatype":"FP32","shape":[2],"data":[1,"x"]}]}`, "not a number"},
	} {
		_, err := serveText(t, 200, test.header, test.body).Infer(t.Context(), "m")
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add("", []byte(`{"outputs":[{"name":"a","datatype":"FP32","shape":[2],"data":[1,2]}]}`))
	f.Add("78", []byte(`{"outputs":[{"name":"a","datatype":"UINT8","shape":[1],"parameters":{"binary_data_size":1}}]}x`))
	f.Fuzz(func(t *testing.T, length string, body []byte) {
		outputs, err := parseAnswer(length, body)
		for _, out := range outputs {
			if out.Type == tensor.Bytes {
				continue
			}
			if n, serr := out.Shape.Bytes(out.Type); err == nil && (serr != nil || n != len(out.Data)) {
				t.Errorf("output of shape %s has %d bytes", out.Shape, len(out.Data))
			}
		}
	})
}

func TestRequestsAreReadBack(t *testing.T) {
	want := []Tensor{
		{Spec: tensor.Spec{Name: "a", Type: tensor.FP32, Shape: tensor.Shape{1, 2}}, Data: []byte{0, 0, 128, 63, 0, 0, 0, 64}},
		{Spec: tensor.Spec{Name: "s", Type: tensor.Bytes, Shape: tensor.Shape{1}}, Data: []byte("\x02\x00\x00\x00hi")},
	}
	r, err := EncodeJSON(want)
	if err != nil || r.Header != 0 {
		t.Fatal(r, err)
	}
	got, err := ParseRequest(r.Body)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	half := []Tensor{{Spec: tensor.Spec{Name: "h", Type: tensor.FP16, Shape: tensor.Shape{1}}, Data: []byte{0, 0}}}
	if _, err := EncodeJSON(half); err == nil || !strings.Contains(err.Error(), `input "h"`) {
		t.Errorf("FP16 as JSON: %v", err)
	}
	for text, want := range map[string]string{
		`{"inputs":[]}`: "no inputs",
		`[`:             "the request",
		`{"inputs":[{"name":"a","datatype":"FP32","shape":[3],"data":[1,2]}]}`: `input "a"`,
		`{"inputs":[{"name":"a","datatype":"F","shape":[3],"data":[1,2]}]}`:    "not supported",
	} {
		if _, err := ParseRequest([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}
