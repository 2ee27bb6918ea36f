package access

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/serve"
	"oscine.dev/oscine/internal/serve/core"
)

// Guard lets requests with a valid token through to next, and those without any
// where required is false. A token that is not valid is refused in any case:
// a client that shows one relies on its bounds.
func (t *Tokens) Guard(required bool, next http.Handler) http.Handler {
	reject := serve.Rejecter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secret, err := bearer(r.Header)
		switch {
		case errors.Is(err, errNoToken) && !required:
			next.ServeHTTP(w, r)
			return
		case err != nil:
			reject(w, r, err)
			return
		}
		c, err := t.find(secret)
		if err != nil {
			reject(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(core.WithGuard(r.Context(), c)))
	})
}

var errNoToken = fmt.Errorf("%w: inference on this port needs a token, as Authorization: Bearer TOKEN; an administrator of the node makes one with oscine token create", errdefs.ErrUnauthenticated)

// bearer reads the token of a request: RFC 6750, section 2.1.
func bearer(h http.Header) (string, error) {
	value := h.Get("Authorization")
	if value == "" {
		return "", errNoToken
	}
	scheme, secret, ok := strings.Cut(value, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", fmt.Errorf("%w: the header Authorization is not written Bearer TOKEN", errdefs.ErrUnauthenticated)
	}
	return strings.TrimSpace(secret), nil
}
