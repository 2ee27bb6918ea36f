package channel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/tensor"
)

// ModelError is the worker's refusal of its model: not a model, an operator
// that the engine does not know, a kind of tensor that cannot be served.
// Starting the worker again would not help.
type ModelError struct{ Text string }

func (e *ModelError) Error() string { return e.Text }

// Conn is the daemon's end of a connection to a worker. Its methods are not
// safe for concurrent use, except Close.
type Conn struct {
	conn     *net.UnixConn
	meta     Metadata
	region   *Region
	sequence uint32
	buf      []byte
	results  []Result
}

// Dial connects to the worker that listens on socket and waits, as long as ctx
// allows, until it has loaded its model. It returns a *ModelError when the
// worker refuses the model, and an error wrapping ErrProtocol when it speaks
// another version.
func Dial(ctx context.Context, socket string) (*Conn, error) {
	var dialer net.Dialer
	nc, err := dialer.DialContext(ctx, "unixpacket", socket)
	if err != nil {
		return nil, err
	}
	c := &Conn{conn: nc.(*net.UnixConn), buf: make([]byte, MaxMessage)}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	err = c.hello()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(err, c.conn.Close())
	}
	return c, nil
}

func (c *Conn) hello() error {
	if err := c.send(helloKind, helloMessage{Version: Version}, nil); err != nil {
		return err
	}
	var model modelMessage
	if err := c.receive(modelKind, &model); err != nil {
		return err
	}
	switch {
	case model.Version != Version:
		return fmt.Errorf("%w: the worker speaks version %d, this daemon %d; install the pack of this release", ErrProtocol, model.Version, Version)
	case model.Error != "":
		return &ModelError{Text: model.Error}
	}
	c.meta = model.Metadata
	return c.meta.check()
}

func (c *Conn) send(k kind, v any, oob []byte) error {
	msg, err := encodeControl(k, v)
	if err != nil {
		return err
	}
	_, _, err = c.conn.WriteMsgUnix(msg, oob, nil)
	return err
}

func (c *Conn) receive(k kind, v any) error {
	n, err := c.read()
	if err != nil {
		return err
	}
	return decodeControl(c.buf[:n], k, v)
}

func (c *Conn) read() (int, error) {
	n, err := c.conn.Read(c.buf)
	if errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("the worker closed the connection: %w", io.ErrUnexpectedEOF)
	}
	return n, err
}

// Metadata returns what the worker said of its model.
func (c *Conn) Metadata() *Metadata { return &c.meta }

// Share hands the region to the worker. The region outlives the connection, so
// that a request in a slot can go to the next worker.
func (c *Conn) Share(region *Region) error {
	_ = c.conn.SetDeadline(time.Now().Add(10 * time.Second))
	message := regionMessage{Slots: region.slots, SlotBytes: region.slotBytes}
	if err := c.send(regionKind, message, unix.UnixRights(int(region.fd.Fd()))); err != nil {
		return err
	}
	var mapped mappedMessage
	if err := c.receive(mappedKind, &mapped); err != nil {
		return err
	}
	if mapped.Error != "" {
		return fmt.Errorf("the worker cannot map the shared memory: %s", mapped.Error)
	}
	c.region = region
	return nil
}

// Run sends the requests, at most MaxRequests, as one batch and waits up to
// timeout for their results, which stay valid until the next call. After an
// error the connection is of no further use.
func (c *Conn) Run(requests []Request, timeout time.Duration) ([]Result, error) {
	c.sequence++
	_ = c.conn.SetDeadline(time.Now().Add(timeout))
	msg := appendRun(c.buf[:0], c.sequence, requests)
	if len(msg) > MaxMessage {
		return nil, fmt.Errorf("%w: run message of %d bytes", ErrProtocol, len(msg))
	}
	if _, err := c.conn.Write(msg); err != nil {
		return nil, err
	}
	n, err := c.read()
	if err != nil {
		return nil, err
	}
	sequence, results, err := decodeDone(c.buf[:n], c.results)
	if err != nil {
		return nil, err
	}
	c.results = results
	if sequence != c.sequence || len(results) != len(requests) {
		return nil, fmt.Errorf("%w: answer %d with %d results to run %d with %d requests", ErrProtocol, sequence, len(results), c.sequence, len(requests))
	}
	for i := range results {
		if err := c.checkResult(&requests[i], &results[i]); err != nil {
			return nil, err
		}
	}
	return results, nil
}

func (c *Conn) checkResult(q *Request, r *Result) error {
	if r.Err != "" {
		return nil
	}
	want := len(q.Wanted)
	if want == 0 {
		want = len(c.meta.Outputs)
	}
	if len(r.Shapes) != want {
		return fmt.Errorf("%w: %d outputs, want %d", ErrProtocol, len(r.Shapes), want)
	}
	for i, shape := range r.Shapes {
		output := i
		if len(q.Wanted) > 0 {
			output = q.Wanted[i]
		}
		n, err := shape.Bytes(c.meta.Outputs[output].Type)
		if err != nil {
			return fmt.Errorf("%w: output %q: %v", ErrProtocol, c.meta.Outputs[output].Name, err)
		}
		if n > c.region.slotBytes || r.Offsets[i] > c.region.slotBytes-n || r.Offsets[i]%align != 0 {
			return fmt.Errorf("%w: output %q of %s at %d lies outside its slot", ErrProtocol, c.meta.Outputs[output].Name, tensor.Shape(shape), r.Offsets[i])
		}
	}
	return nil
}

// Close ends the connection; a Run in progress fails. The worker waits for the
// next one.
func (c *Conn) Close() error { return c.conn.Close() }
