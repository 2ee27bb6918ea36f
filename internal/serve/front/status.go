package front

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// StatusClientGone is what nginx writes down for a client that closed its
// connection; nobody receives it.
const StatusClientGone = 499

// Status maps the class of an error to HTTP.
func Status(err error) int {
	switch {
	case errors.Is(err, ErrTooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, ErrEncoding):
		return http.StatusUnsupportedMediaType
	case errors.Is(err, ErrSlow):
		return http.StatusRequestTimeout
	case errdefs.IsInvalidArgument(err):
		return http.StatusBadRequest
	case errdefs.IsNotFound(err):
		return http.StatusNotFound
	case errdefs.IsAlreadyExists(err), errdefs.IsConflict(err):
		return http.StatusConflict
	case errdefs.IsPermissionDenied(err):
		return http.StatusForbidden
	case errdefs.IsUnauthorized(err):
		return http.StatusUnauthorized
	case errdefs.IsNotImplemented(err):
		return http.StatusNotImplemented
	case errdefs.IsResourceExhausted(err):
		return http.StatusTooManyRequests
	case errdefs.IsUnavailable(err):
		return http.StatusServiceUnavailable
	case errdefs.IsDeadlineExceeded(err):
		return http.StatusGatewayTimeout
	case errdefs.IsCanceled(err):
		return StatusClientGone
	}
	return http.StatusInternalServerError
}

// Refuse sets the headers of a refusal, and returns its status.
func Refuse(h http.Header, err error) int {
	status := Status(err)
	switch status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(RetryAfter(err).Seconds()))))
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="inference"`)
	}
	return status
}

// RetryAfter is when a client that was refused with err may try again.
func RetryAfter(err error) time.Duration {
	var later interface{ RetryAfter() time.Duration }
	if errors.As(err, &later) {
		return later.RetryAfter()
	}
	return time.Second
}

// reject answers as gRPC's clients, or as all others, expect it.
func reject(w http.ResponseWriter, r *http.Request, err error) {
	if r.ProtoMajor >= 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		code := "16" // unauthenticated
		if errdefs.IsResourceExhausted(err) {
			code = "8"
		}
		h := w.Header()
		h.Set("Content-Type", "application/grpc")
		h["Grpc-Status"], h["Grpc-Message"] = []string{code}, []string{url.PathEscape(err.Error())}
		return
	}
	Error(w, err)
}

// JSON answers with v.
func JSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	Send(w, status, body)
}

// Error answers with err as the protocols do that have no form of their own.
func Error(w http.ResponseWriter, err error) {
	JSON(w, Refuse(w.Header(), err), map[string]string{"error": err.Error()})
}
