package openai

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
)

// Types of errors, as OpenAI's API has them.
const (
	typeInvalid  = "invalid_request_error"
	typeLimit    = "rate_limit_error"
	typeServer   = "server_error"
	typeTimeout  = "timeout_error"
	codeModel    = "model_not_found"
	codeLength   = "context_length_exceeded"
	codeLimit    = "rate_limit_exceeded"
	codeNotReady = "model_not_ready"
)

// apiError is an error in the form of OpenAI's API.
type apiError struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`

	status int
}

// errModel means that a request names no model.
var errModel = fmt.Errorf(`%w: "model" is missing: GET /v1/models lists them`, core.ErrInvalid)

// errorOf maps the class of an error to a status, a type and a code.
func errorOf(err error) *apiError {
	e := &apiError{Message: err.Error(), Type: typeServer, status: http.StatusInternalServerError}
	set := func(status int, kind, code, param string) {
		e.status, e.Type = status, kind
		if code != "" {
			e.Code = &code
		}
		if param != "" {
			e.Param = &param
		}
	}
	switch {
	case errors.Is(err, errModel):
		set(http.StatusBadRequest, typeInvalid, "", "model")
	case errors.Is(err, front.ErrTooLarge):
		set(http.StatusRequestEntityTooLarge, typeInvalid, "", "")
	case errors.Is(err, front.ErrEncoding):
		set(http.StatusUnsupportedMediaType, typeInvalid, "", "")
	case errors.Is(err, front.ErrSlow):
		set(http.StatusRequestTimeout, typeTimeout, "", "")
	case errdefs.IsInvalidArgument(err):
		set(http.StatusBadRequest, typeInvalid, "", "")
	case errdefs.IsNotFound(err):
		set(http.StatusNotFound, typeInvalid, codeModel, "model")
	case errdefs.IsResourceExhausted(err):
		set(http.StatusTooManyRequests, typeLimit, codeLimit, "")
	case errdefs.IsUnavailable(err):
		set(http.StatusServiceUnavailable, typeServer, codeNotReady, "")
	case errdefs.IsDeadlineExceeded(err):
		set(http.StatusGatewayTimeout, typeTimeout, "", "")
	case errdefs.IsCanceled(err):
		e.status = statusClientGone
	}
	return e
}

// statusClientGone is what nginx writes down for a client that closed its
// connection; nobody receives it.
const statusClientGone = 499

func writeError(w http.ResponseWriter, err error) {
	e := errorOf(err)
	if e.status == http.StatusServiceUnavailable || e.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", strconv.Itoa(int(front.RetryAfter(err).Seconds())))
	}
	writeJSON(w, e.status, map[string]*apiError{"error": e})
}

// engineError puts what an engine said of a request into the API's form.
func engineError(status int, text []byte) *apiError {
	var said struct {
		Error struct {
			Message string `json:"message"`
			Type    string `json:"type"`
		} `json:"error"`
	}
	e := &apiError{Type: typeInvalid, status: status}
	if err := json.Unmarshal(text, &said); err != nil || said.Error.Message == "" {
		e.Message = fmt.Sprintf("the engine answered with status %d", status)
	} else {
		e.Message = said.Error.Message
	}
	switch {
	case said.Error.Type == "exceed_context_size_error":
		e.Code = new(codeLength)
	case status == http.StatusTooManyRequests:
		e.Type, e.Code = typeLimit, new(codeLimit)
	case status >= http.StatusInternalServerError:
		e.Type = typeServer
	}
	return e
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":{"message":"the answer cannot be written","type":"server_error"}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	front.Send(w, status, body)
}
