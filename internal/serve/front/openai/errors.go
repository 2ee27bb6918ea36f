package openai

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

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
	codeKey      = "invalid_api_key"
	codeURL      = "unknown_url"

	typeAuthentication = "authentication_error"
	typePermission     = "permission_error"
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
	e := &apiError{Message: err.Error(), Type: typeServer, status: front.Status(err)}
	switch e.status {
	case http.StatusUnauthorized:
		e.Type, e.Code = typeAuthentication, new(codeKey)
	case http.StatusForbidden:
		e.Type = typePermission
	case http.StatusNotFound:
		e.Type, e.Code, e.Param = typeInvalid, new(codeModel), new("model")
	case http.StatusTooManyRequests:
		e.Type, e.Code = typeLimit, new(codeLimit)
	case http.StatusServiceUnavailable:
		e.Code = new(codeNotReady)
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		e.Type = typeTimeout
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		e.Type = typeInvalid
	}
	if errors.Is(err, errModel) {
		e.Param = new("model")
	}
	return e
}

func writeError(w http.ResponseWriter, err error) {
	e := errorOf(err)
	front.Refuse(w.Header(), err)
	front.JSON(w, e.status, map[string]*apiError{"error": e})
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
