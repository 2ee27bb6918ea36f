package serve

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
	"oscine.dev/oscine/internal/serve/servetest"
)

// onTheWall is a made-up protocol: POST /wall/MODEL doubles a text's length.
func onTheWall() front.Front {
	return front.Front{Name: "wall", Routes: []string{"POST /wall/{model}"}, New: func(r *core.Registry, _ front.Options) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			text, _ := io.ReadAll(req.Body)
			answer, err := r.Infer(req.Context(), core.Request{Model: req.PathValue("model"), Inputs: servetest.Row(float32(len(text)))})
			if errdefs.IsNotFound(err) {
				http.Error(w, "nobody hears", http.StatusGone)
				return
			}
			defer answer.Free()
			_, _ = w.Write(answer.Outputs[0].Data[:4])
		})
	}}
}

// A protocol is a folder and one line in the list.
func TestAddedFrontServesBesideTheOthers(t *testing.T) {
	r := servetest.New(t)
	r.Ready("m")
	h := front.Handler(r.Registry, Options{}, append(fronts(), onTheWall()))
	for _, test := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/wall/m", "four", 200, "\x00\x00\x00\x41"}, // 8, as a float32
		{"POST", "/wall/none", "four", http.StatusGone, "nobody hears"},
		{"GET", "/v2/models/m/ready", "", 200, `"ready":true`},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(test.method, test.path, strings.NewReader(test.body)))
		if w.Code != test.status || !strings.Contains(w.Body.String(), test.want) {
			t.Errorf("%s %s: got %d %q, want %d %q", test.method, test.path, w.Code, w.Body, test.status, test.want)
		}
	}
}

func TestErrorsHaveOneClass(t *testing.T) {
	for err, is := range map[error]func(error) bool{
		core.ErrNotFound: errdefs.IsNotFound, core.ErrInvalid: errdefs.IsInvalidArgument, core.ErrNotReady: errdefs.IsUnavailable,
		core.ErrOverloaded: errdefs.IsResourceExhausted, core.ErrExpired: errdefs.IsDeadlineExceeded, core.ErrCanceled: errdefs.IsCanceled,
	} {
		if !is(errors.Join(err)) {
			t.Errorf("%v is not of its class", err)
		}
	}
}
