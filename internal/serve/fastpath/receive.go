package fastpath

import (
	"errors"
	"io"
	"slices"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/linux"
)

// receive reads the first bytes of a request, and takes the descriptors that come
// with them.
func (c *conn) receive(p []byte) (int, error) {
	c.in, c.got, c.bad = p, 0, nil
	err := c.raw.Read(c.read)
	c.in = nil
	for _, fd := range slices.Backward(c.came) { // outside of Read: closing what is no memfd may take long
		c.regions.Offer(fd) // the first one stays
	}
	c.came = nil
	if err == nil {
		err = c.bad
	}
	if err == nil && c.got == 0 && len(p) > 0 {
		err = io.EOF
	}
	return c.got, err
}

// readNow reads what is there.
func (c *conn) readNow(fd uintptr) bool {
	for {
		n, came, err := linux.ReceiveNow(int(fd), c.in)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return false
		}
		c.got, c.came, c.bad = n, came, err
		return true
	}
}
