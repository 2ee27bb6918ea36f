package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	pb "oscine.dev/oscine/internal/serve/front/oip/inferencepb"
	"oscine.dev/oscine/internal/serve/oip"
	"oscine.dev/oscine/internal/tensor"
)

// manyRows are a megabyte.
const manyRows = 4096

// inputOf is what a model is asked with.
func inputOf(model string) oip.Tensor {
	spec := tensor.Spec{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{1, features}}
	n := features
	switch model {
	case digitsName:
		spec.Name, spec.Shape, n = "image", tensor.Shape{1, 1, 28, 28}, 784
	case rowsName:
		spec.Shape, n = tensor.Shape{manyRows, features}, manyRows*features
	}
	return oip.Tensor{Spec: spec, Data: floats(n)}
}

// post is a request of HTTP/1.1, as it goes over the wire.
func post(path string, header http.Header, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: node\r\nContent-Length: %d\r\n", path, len(body))
	_ = header.Write(&b) // to memory
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

// encoding is one of the protocol's two of a request.
type encoding func([]oip.Tensor) (oip.Request, error)

// request asks a model in an encoding.
func request(model string, encode encoding) ([]byte, error) {
	return requestOf(model, inputOf(model), encode)
}

func requestOf(model string, in oip.Tensor, encode encoding) ([]byte, error) {
	r, err := encode([]oip.Tensor{in})
	return post("/v2/models/"+model+"/infer", r.HTTPHeader(), r.Body), err
}

// grpcFrame is the message of a call of gRPC.
func grpcFrame(model string) ([]byte, error) {
	in := inputOf(model)
	m, err := proto.Marshal(&pb.ModelInferRequest{ModelName: model, RawInputContents: [][]byte{in.Data},
		Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: in.Name, Datatype: in.Type.String(), Shape: in.Shape}}})
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
	last          time.Time // when it asked
}

func dial(network, addr string, request []byte) (client, error) {
	c := &plain{network: network, addr: addr, in: bufio.NewReader(nil), request: request}
	return c, c.connect()
}

func (c *plain) connect() (err error) {
	if c.conn, err = net.Dial(c.network, c.addr); err == nil {
		c.in.Reset(c.conn)
		c.last = time.Now()
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

func (c *plain) close() { _ = c.conn.Close() }

// shared is a client whose tensors lie in memory that it shares with the node.
type shared struct {
	socket, model string
	memory        *oip.Memory
	in, out       []oip.Placed
	last          time.Time // when it asked
}

func dialShared(socket, model string) (client, error) {
	in, name := inputOf(model), "y"
	if model == digitsName {
		name = "scores"
	}
	c := &shared{socket: socket, model: model,
		in:  []oip.Placed{{Spec: in.Spec, Size: len(in.Data)}},
		out: []oip.Placed{{Spec: tensor.Spec{Name: name}, Offset: sharedSize / 2, Size: sharedSize / 2}}}
	return c, c.connect()
}

// sharedSize has room for the largest tensors, in and out.
const sharedSize = 4 << 20

func (c *shared) connect() (err error) {
	if c.memory, err = oip.OpenMemory(c.socket, sharedSize); err == nil {
		copy(c.memory.Bytes(), inputOf(c.model).Data)
		c.last = time.Now()
	}
	return err
}

func (c *shared) ask() error {
	if time.Since(c.last) > idle {
		c.close()
		if err := c.connect(); err != nil {
			return err
		}
	}
	c.last = time.Now()
	_, err := c.memory.Infer(context.Background(), c.model, c.in, c.out)
	return err
}

func (c *shared) close() { _ = c.memory.Close() }

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
