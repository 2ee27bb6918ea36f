package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	pb "oscine.dev/oscine/internal/serve/front/oip/inferencepb"
)

// input says what a model is asked with.
type input struct{ name, shape string }

// manyRows are a megabyte.
const manyRows = 4096

func inputOf(model string) (in input, elements []byte) {
	switch model {
	case digitsName:
		return input{"image", "[1,1,28,28]"}, floats(784)
	case rowsName:
		return input{"x", fmt.Sprintf("[%d,64]", manyRows)}, floats(manyRows * features)
	}
	return input{"x", "[1,64]"}, floats(features)
}

// post is a request of HTTP/1.1, as it goes over the wire.
func post(path string, header map[string]string, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: node\r\nContent-Length: %d\r\n", path, len(body))
	for k, v := range header {
		fmt.Fprintf(&b, "%s: %s\r\n", k, v)
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

func inferPath(model string) string { return "/v2/models/" + model + "/infer" }

// binaryRequest asks in the protocol's binary form.
func binaryRequest(model string) []byte {
	in, data := inputOf(model)
	head := fmt.Sprintf(`{"inputs":[{"name":%q,"shape":%s,"datatype":"FP32","parameters":{"binary_data_size":%d}}],"parameters":{"binary_data_output":true}}`, in.name, in.shape, len(data))
	return post(inferPath(model), map[string]string{"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": strconv.Itoa(len(head))}, append([]byte(head), data...))
}

// numbers writes the elements of a request as JSON.
func numbers(data []byte) string {
	list := make([]string, 0, len(data)/4)
	for i := range len(data) / 4 {
		list = append(list, strconv.FormatFloat(float64(float32(i%97)/97), 'g', -1, 32))
	}
	return "[" + strings.Join(list, ",") + "]"
}

func jsonRequest(model string) []byte {
	in, data := inputOf(model)
	body := fmt.Sprintf(`{"inputs":[{"name":%q,"shape":%s,"datatype":"FP32","data":%s}]}`, in.name, in.shape, numbers(data))
	return post(inferPath(model), map[string]string{"Content-Type": "application/json"}, []byte(body))
}

// grpcFrame is the message of a call of gRPC.
func grpcFrame(model string) ([]byte, error) {
	in, data := inputOf(model)
	shape := []int64{1, features}
	if model == digitsName {
		shape = []int64{1, 1, 28, 28}
	}
	m, err := proto.Marshal(&pb.ModelInferRequest{ModelName: model, RawInputContents: [][]byte{data},
		Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: in.name, Datatype: "FP32", Shape: shape}}})
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...), nil
}

// client sends one request after the other over one connection.
type client interface {
	ask() error
	close()
}

// plain is a client of HTTP/1.1.
type plain struct {
	network, addr string
	conn          net.Conn
	in            *bufio.Reader
	request       []byte
	last          time.Time    // when it asked
	hello         func() error // what it sends first; nil: nothing
}

func dial(network, addr string, request []byte) (client, error) {
	c := &plain{network: network, addr: addr, in: bufio.NewReader(nil), request: request}
	return c, c.connect()
}

func (c *plain) connect() (err error) {
	if c.conn, err = net.Dial(c.network, c.addr); err == nil {
		c.in.Reset(c.conn)
		c.last = time.Now()
		if c.hello != nil {
			err = c.hello()
		}
	}
	return err
}

// idle is after how long a client connects again: there are servers that close
// connections after five seconds.
const idle = 3 * time.Second

func (c *plain) ask() error {
	if time.Since(c.last) > idle {
		c.close()
		if err := c.connect(); err != nil {
			return err
		}
	}
	c.last = time.Now()
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	return c.receive()
}

func (c *plain) receive() error {
	answer, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.300s", answer.Status, body)
	}
	return err
}

// dialShared returns a client whose tensors lie in memory that it shares with the
// node.
func dialShared(socket, model string) (client, error) {
	in, data := inputOf(model)
	out := "y"
	if model == digitsName {
		out = "scores"
	}
	const size = 4 << 20
	fd, err := unix.MemfdCreate("inference", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	memory := os.NewFile(uintptr(fd), "inference")
	if err := memory.Truncate(size); err != nil {
		return nil, err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return nil, err
	}
	if _, err := memory.WriteAt(data, 0); err != nil {
		return nil, err
	}
	body := fmt.Sprintf(`{"inputs":[{"name":%q,"shape":%s,"datatype":"FP32","parameters":{"shared_memory_region":"r","shared_memory_byte_size":%d}}],`+
		`"outputs":[{"name":%q,"parameters":{"shared_memory_region":"r","shared_memory_offset":%d,"shared_memory_byte_size":%d}}]}`, in.name, in.shape, len(data), out, size/2, size/2)
	c := &plain{network: "unix", addr: socket, in: bufio.NewReader(nil), request: post(inferPath(model), map[string]string{"Content-Type": "application/json"}, []byte(body))}
	register := post("/v2/systemsharedmemory/region/r/register", nil, fmt.Appendf(nil, `{"key":"memfd","offset":0,"byte_size":%d}`, size))
	c.hello = func() error {
		if _, _, err := c.conn.(*net.UnixConn).WriteMsgUnix(register, unix.UnixRights(int(memory.Fd())), nil); err != nil {
			return err
		}
		return c.receive()
	}
	return c, c.connect()
}

func (c *plain) close() { _ = c.conn.Close() }

// grpcClient calls ModelInfer.
type grpcClient struct {
	http  *http.Client
	url   string
	frame []byte
}

func dialGRPC(addr, model string) (client, error) {
	frame, err := grpcFrame(model)
	if err != nil {
		return nil, err
	}
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	return &grpcClient{&http.Client{Transport: &http.Transport{Protocols: &p}}, "http://" + addr + "/inference.GRPCInferenceService/ModelInfer", frame}, nil
}

func (c *grpcClient) ask() error {
	r, err := http.NewRequest(http.MethodPost, c.url, bytes.NewReader(c.frame))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/grpc")
	answer, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	if s := answer.Trailer.Get("Grpc-Status"); s != "0" {
		return fmt.Errorf("gRPC status %s: %s", s, answer.Trailer.Get("Grpc-Message"))
	}
	return nil
}

func (c *grpcClient) close() { c.http.CloseIdleConnections() }

// load is a number of clients in a closed loop.
type load []client

// clients connects n clients.
func clients(n int, connect func() (client, error)) (load, error) {
	var l load
	for range n {
		c, err := connect()
		if err != nil {
			return nil, err
		}
		l = append(l, c)
	}
	return l, nil
}

// run asks n times in all.
func (l load) run(n int) error {
	if len(l) == 1 {
		for range n {
			if err := l[0].ask(); err != nil {
				return err
			}
		}
		return nil
	}
	var all errgroup.Group
	for _, c := range l {
		all.Go(func() error { return load{c}.run((n + len(l) - 1) / len(l)) })
	}
	return all.Wait()
}
