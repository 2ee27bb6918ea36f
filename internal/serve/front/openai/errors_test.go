package openai

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/serve/core"
)

// Each class of errors has the status by which OpenAI's clients choose their
// exceptions, and the headers that clients go by.
func TestErrorsHaveTheirForm(t *testing.T) {
	for err, want := range map[error]struct {
		status         int
		header, inBody string
	}{
		errdefs.ErrUnauthenticated.WithMessage("no token"):   {401, "Www-Authenticate", `"code":"invalid_api_key"`},
		errdefs.ErrPermissionDenied.WithMessage("not yours"): {403, "", `"type":"permission_error"`},
		core.ErrNotFound:       {404, "", `"code":"model_not_found"`},
		core.ErrOverloaded:     {429, "Retry-After", `"code":"rate_limit_exceeded"`},
		core.ErrNotReady:       {503, "Retry-After", `"code":"model_not_ready"`},
		core.ErrExpired:        {504, "", `"type":"timeout_error"`},
		core.ErrInvalid:        {400, "", `"type":"invalid_request_error"`},
		errModel:               {400, "", `"param":"model"`},
		http.ErrBodyNotAllowed: {500, "", `"type":"server_error"`},
	} {
		w := httptest.NewRecorder()
		writeError(w, err)
		if w.Code != want.status || want.header != "" && w.Header().Get(want.header) == "" || !strings.Contains(w.Body.String(), want.inBody) {
			t.Errorf("%v: got %d %v %s, want %+v", err, w.Code, w.Header(), w.Body, want)
		}
	}
}
