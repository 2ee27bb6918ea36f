package oip

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/tensor"
)

// Memory is a connection to a node's Unix socket with memory that both share:
// requests and answers carry no elements. It is used by one goroutine at a time.
type Memory struct {
	conn *net.UnixConn
	in   *bufio.Reader
	file *os.File
	mem  []byte
	out  []byte
}

// memoryName is the name of a Memory's one region.
const memoryName = "memory"

// OpenMemory connects to a socket, such as Socket, and hands over size bytes of
// memory.
func OpenMemory(socket string, size int) (_ *Memory, err error) {
	fd, err := unix.MemfdCreate("inference", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("create shared memory: %w", err)
	}
	m := &Memory{file: os.NewFile(uintptr(fd), "inference")}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	if err := m.file.Truncate(int64(size)); err != nil {
		return nil, err
	}
	if _, err := unix.FcntlInt(m.file.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return nil, fmt.Errorf("seal shared memory: %w", err)
	}
	if m.mem, err = unix.Mmap(int(m.file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map shared memory: %w", err)
	}
	if m.conn, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"}); err != nil {
		return nil, err
	}
	m.in = bufio.NewReader(m.conn)
	body := fmt.Sprintf(`{"key":"memfd","offset":0,"byte_size":%d}`, size)
	_, err = m.ask(context.Background(), "/v2/systemsharedmemory/region/"+memoryName+"/register", []byte(body), unix.UnixRights(int(m.file.Fd())))
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Close gives memory and connection back.
func (m *Memory) Close() error {
	var errs []error
	if m.conn != nil {
		errs = append(errs, m.conn.Close())
	}
	if m.mem != nil {
		errs = append(errs, unix.Munmap(m.mem))
	}
	return errors.Join(append(errs, m.file.Close())...)
}

// Bytes is the memory.
func (m *Memory) Bytes() []byte { return m.mem }

// Placed is a tensor in a Memory.
type Placed struct {
	tensor.Spec
	Offset, Size int // of the elements, in bytes
}

// Infer asks a model with inputs that lie in the memory. Each output is put at its
// Offset, where it has Size bytes; Infer returns outputs with the shapes, types and
// sizes that they have. An *Error is the server's refusal.
func (m *Memory) Infer(ctx context.Context, model string, inputs, outputs []Placed) ([]Placed, error) {
	b := append(m.out[:0], `{"inputs":[`...)
	for i := range inputs {
		if i > 0 {
			b = append(b, ',')
		}
		in := &inputs[i]
		b = fmt.Appendf(b, `{"name":%q,"datatype":%q,"shape":[`, in.Name, in.Type.String())
		for j, d := range in.Shape {
			if j > 0 {
				b = append(b, ',')
			}
			b = fmt.Append(b, d)
		}
		b = in.appendPlace(append(b, "],"...))
	}
	b = append(b, `],"outputs":[`...)
	for i := range outputs {
		if i > 0 {
			b = append(b, ',')
		}
		b = outputs[i].appendPlace(fmt.Appendf(b, `{"name":%q,`, outputs[i].Name))
	}
	m.out = append(b, "]}"...)
	text, err := m.ask(ctx, "/v2/models/"+model+"/infer", m.out, nil)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Outputs []struct {
			wireTensor
			Parameters struct {
				Size int `json:"shared_memory_byte_size"`
			} `json:"parameters"`
		} `json:"outputs"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, fmt.Errorf("the answer is not JSON: %w", err)
	}
	if len(answer.Outputs) != len(outputs) {
		return nil, fmt.Errorf("the answer has %d outputs of %d", len(answer.Outputs), len(outputs))
	}
	got := make([]Placed, len(outputs))
	for i := range answer.Outputs {
		spec, err := answer.Outputs[i].spec()
		if err != nil {
			return nil, err
		}
		got[i] = Placed{spec, outputs[i].Offset, answer.Outputs[i].Parameters.Size}
		if got[i].Size < 0 || got[i].Size > outputs[i].Size {
			return nil, fmt.Errorf("output %q has %d bytes of %d", spec.Name, got[i].Size, outputs[i].Size)
		}
	}
	return got, nil
}

func (p *Placed) appendPlace(b []byte) []byte {
	return fmt.Appendf(b, `"parameters":{"shared_memory_region":%q,"shared_memory_offset":%d,"shared_memory_byte_size":%d}}`, memoryName, p.Offset, p.Size)
}

// ask sends a request, with a descriptor where control has one, and reads the
// answer. After an error that is no *Error the connection is of no further use.
func (m *Memory) ask(ctx context.Context, path string, body, control []byte) ([]byte, error) {
	deadline, _ := ctx.Deadline()
	if err := m.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	cancelled := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = m.conn.SetDeadline(time.Unix(1, 0))
		close(cancelled)
	})
	defer func() {
		if !stop() {
			<-cancelled // it must not cut off the next request
		}
	}()
	request := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: node\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	n, _, err := m.conn.WriteMsgUnix(request, control, nil)
	if err == nil && n < len(request) {
		_, err = m.conn.Write(request[n:])
	}
	if err != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	answer, err := http.ReadResponse(m.in, nil)
	if err != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	text, err := bounded.ReadAll(answer.Body, maxAnswer)
	if err != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	if answer.StatusCode != http.StatusOK {
		return nil, refusal(answer, text)
	}
	return text, nil
}
