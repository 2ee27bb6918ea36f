package fastpath

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/linux"
)

// receive reads the first bytes of a request, and takes a descriptor that comes
// with them.
func (c *conn) receive(p []byte) (int, error) {
	c.in, c.got, c.bad = p, 0, nil
	err := c.raw.Read(c.read)
	c.in = nil
	c.take() // outside of Read: closing what is no memfd may take long
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
		var control []byte
		if c.regions != nil {
			control = c.control[:]
		}
		n, m, err := linux.ReceiveNow(int(fd), c.in, control)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return false
		}
		c.got, c.bad, c.controls = n, err, m
		return true
	}
}

// take takes over the descriptor of a control message.
func (c *conn) take() {
	if c.controls == 0 {
		return
	}
	messages, err := unix.ParseSocketControlMessage(c.control[:c.controls])
	c.controls = 0
	if err != nil {
		return
	}
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
			for _, fd := range fds {
				c.regions.Offer(fd)
			}
		}
	}
}
