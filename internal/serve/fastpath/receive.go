package fastpath

import (
	"io"
	"slices"
)

// receive reads the first bytes of a request, and takes the descriptors that come
// with them.
func (c *conn) receive(p []byte) (int, error) {
	n, came, err := c.receiver.Receive(p)
	for _, fd := range slices.Backward(came) {
		c.regions.Offer(fd) // the first one stays
	}
	if err == nil && n == 0 && len(p) > 0 {
		err = io.EOF
	}
	return n, err
}
