package bounded

import (
	"errors"
	"fmt"
	"io"
)

// ErrTooLarge is returned for what is larger than its bound.
var ErrTooLarge = errors.New("too large")

// ReadAll is io.ReadAll for at most limit bytes. For more it returns an error
// that is ErrTooLarge and names the bound, and nothing of what it has read.
func ReadAll(r io.Reader, limit int64) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("%w: it is larger than %d bytes", ErrTooLarge, limit)
	}
	return content, nil
}
