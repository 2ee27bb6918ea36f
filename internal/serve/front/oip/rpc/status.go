package rpc

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/serve/front"
)

// code is a status of gRPC: doc/statuscodes.md of the gRPC project.
type code int

const (
	ok                 code = 0
	canceled           code = 1
	unknown            code = 2
	invalidArgument    code = 3
	deadlineExceeded   code = 4
	notFound           code = 5
	alreadyExists      code = 6
	permissionDenied   code = 7
	resourceExhausted  code = 8
	failedPrecondition code = 9
	unimplemented      code = 12
	internal           code = 13
	unavailable        code = 14
	unauthenticated    code = 16
)

// failure is an error with a status of its own.
type failure struct {
	code code
	text string
}

func (f *failure) Error() string { return f.text }

// codeOf maps the class of an error to gRPC.
func codeOf(err error) code {
	var f *failure
	switch {
	case err == nil:
		return ok
	case errors.As(err, &f):
		return f.code
	case errors.Is(err, front.ErrTooLarge):
		return resourceExhausted // as gRPC's own servers answer
	case errors.Is(err, front.ErrSlow):
		return deadlineExceeded
	case errors.Is(err, front.ErrEncoding), errdefs.IsInvalidArgument(err):
		return invalidArgument
	case errdefs.IsNotFound(err):
		return notFound
	case errdefs.IsAlreadyExists(err):
		return alreadyExists
	case errdefs.IsPermissionDenied(err):
		return permissionDenied
	case errdefs.IsUnauthorized(err):
		return unauthenticated
	case errdefs.IsResourceExhausted(err):
		return resourceExhausted
	case errdefs.IsFailedPrecondition(err):
		return failedPrecondition
	case errdefs.IsNotImplemented(err):
		return unimplemented
	case errdefs.IsUnavailable(err):
		return unavailable
	case errdefs.IsDeadlineExceeded(err):
		return deadlineExceeded
	case errdefs.IsCanceled(err):
		return canceled
	}
	return internal
}

// maxText bounds what a status says, in bytes: it is a header.
const maxText = 4 << 10

// end writes the status of the call.
func (c *call) end(err error) {
	h, prefix := c.w.Header(), http.TrailerPrefix
	if !c.answered {
		prefix = "" // the status is all there is: Trailers-Only
		h.Set("Content-Type", contentType)
	}
	status := codeOf(err)
	h[prefix+"Grpc-Status"] = []string{strconv.Itoa(int(status))}
	if err == nil {
		return
	}
	h[prefix+"Grpc-Message"] = []string{percent(err.Error())}
	if status == unavailable || status == resourceExhausted && !errors.Is(err, front.ErrTooLarge) {
		// When to try again: proposal A6 of gRPC.
		h[prefix+"Grpc-Retry-Pushback-Ms"] = []string{strconv.FormatInt(front.RetryAfter(err).Milliseconds(), 10)}
	}
}

// percent writes a message as a header can hold it.
func percent(text string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range min(len(text), maxText) {
		if c := text[i]; c < ' ' || c > '~' || c == '%' {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
