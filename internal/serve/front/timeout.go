package front

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"oscine.dev/oscine/internal/serve/core"
)

// timeoutHeader says in seconds after how long nobody wants the answer. No
// protocol over HTTP has a name for that which all clients could send.
const timeoutHeader = "X-Request-Timeout"

// Timeout reads after how long nobody wants the answer of a request over HTTP; 0:
// its headers do not say.
func Timeout(h http.Header) (time.Duration, error) {
	text := Header(h, timeoutHeader)
	if text == "" {
		return 0, nil
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || !(seconds > 0 && seconds <= core.MaxTimeout.Seconds()) {
		return 0, fmt.Errorf("%w: %s %.100q must be a number of seconds, more than 0 and at most %.0f", core.ErrInvalid, timeoutHeader, text, core.MaxTimeout.Seconds())
	}
	return time.Duration(seconds * float64(time.Second)), nil
}
