package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

// Detach is the key that ends Console: Ctrl-].
const Detach = 0x1d

// consoleHistory is how much of what was printed before Console shows first.
const consoleHistory = 8 << 10

// Console connects in and out with the serial console, after the end of what
// it has printed already, until in ends or brings Detach, ctx ends, or the
// machine goes off. One client is connected at a time; a second waits.
func (m *Machine) Console(ctx context.Context, in io.Reader, out io.Writer) error {
	if !m.Running() {
		return fmt.Errorf("machine %s: %w (what it printed is in %s)", m.Name(), ErrNotRunning, m.ConsoleLog())
	}
	conn, err := m.dial(ctx, consoleSocket)
	if err != nil {
		return fmt.Errorf("console of machine %s: %w", m.Name(), err)
	}
	defer conn.Close()
	if err := m.history(out); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	go func() {
		_ = typed(conn, in) // ends the copy below, which has the error that counts
		_ = conn.Close()
	}()
	_, err = io.Copy(out, conn)
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// typed passes on what a person types, up to Detach.
func typed(conn io.Writer, in io.Reader) error {
	buf := make([]byte, 256)
	for {
		n, err := in.Read(buf)
		keys, _, detach := bytes.Cut(buf[:n], []byte{Detach})
		if _, err := conn.Write(keys); err != nil {
			return err
		}
		if err != nil || detach {
			return err
		}
	}
}

func (m *Machine) history(out io.Writer) error {
	f, err := os.Open(m.ConsoleLog())
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.NewSectionReader(f, max(0, info.Size()-consoleHistory), consoleHistory))
	return err
}
