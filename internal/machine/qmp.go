package machine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// qmpTimeout is for QEMU to answer a command, on a busy host.
const qmpTimeout = 20 * time.Second

// execute runs one command of the QEMU Machine Protocol and decodes what it
// returns into result, which may be nil.
func (m *Machine) execute(ctx context.Context, command string, arguments, result any) error {
	conn, err := m.dial(ctx, qmpSocket)
	if err != nil {
		return fmt.Errorf("control socket of machine %s: %w", m.Name(), err)
	}
	defer conn.Close()
	q := qmpSession{conn: conn, lines: bufio.NewReader(conn)}
	if _, err := q.lines.ReadBytes('\n'); err != nil { // the greeting
		return fmt.Errorf("QEMU of machine %s: %w", m.Name(), err)
	}
	if err := q.call("qmp_capabilities", nil, nil); err != nil {
		return fmt.Errorf("QEMU of machine %s: %w", m.Name(), err)
	}
	if err := q.call(command, arguments, result); err != nil {
		return fmt.Errorf("QEMU of machine %s: %s: %w", m.Name(), command, err)
	}
	return nil
}

// dial connects to a socket in the machine's folder by way of the folder's
// descriptor: the full path may be longer than a socket's address can be.
func (m *Machine) dial(ctx context.Context, socket string) (net.Conn, error) {
	dir, err := os.Open(m.dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(int(dir.Fd()))+"/"+socket)
	if err != nil {
		return nil, err
	}
	if socket != qmpSocket {
		return conn, nil
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(qmpTimeout)
	}
	return conn, conn.SetDeadline(deadline)
}

type qmpSession struct {
	conn  net.Conn
	lines *bufio.Reader
}

func (q qmpSession) call(command string, arguments, result any) error {
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	raw, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if _, err := q.conn.Write(append(raw, '\n')); err != nil {
		return err
	}
	for {
		line, err := q.lines.ReadBytes('\n')
		if err != nil {
			return err
		}
		var answer struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
		}
		if err := json.Unmarshal(line, &answer); err != nil {
			return err
		}
		switch {
		case answer.Error != nil:
			return errors.New(answer.Error.Desc)
		case answer.Return == nil: // an event
			continue
		case result == nil:
			return nil
		}
		return json.Unmarshal(answer.Return, result)
	}
}

// Monitor runs a command of QEMU's human monitor and returns its answer, for
// what the machine protocol has no command for.
func (m *Machine) Monitor(ctx context.Context, command string) (answer string, err error) {
	err = m.execute(ctx, "human-monitor-command", map[string]any{"command-line": command}, &answer)
	return answer, err
}

// Reset presses the machine's reset button.
func (m *Machine) Reset(ctx context.Context) error { return m.execute(ctx, "system_reset", nil, nil) }
