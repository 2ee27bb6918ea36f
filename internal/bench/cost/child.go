package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"oscine.dev/oscine/internal/serve"
	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/engine/onnx"
	"oscine.dev/oscine/internal/serve/fastpath"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// listenAll serves a handler as an open endpoint of a node does, on a port and
// on a Unix socket, and says so.
func listenAll(handler http.Handler, socket string, listen func(*http.Server, net.Listener) error) error {
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	unix, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	for _, l := range []net.Listener{port, unix} {
		server := &http.Server{Handler: handler, Protocols: new(http.Protocols), IdleTimeout: 2 * time.Minute}
		server.Protocols.SetHTTP1(true)
		server.Protocols.SetUnencryptedHTTP2(true)
		go func() { _ = listen(server, l) }()
	}
	fmt.Printf("ready %s\n", port.Addr())
	return nil
}

// obey answers lines until there are no more.
func obey(do func(words []string) (string, error)) error {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		answer, err := do(strings.Fields(in.Text()))
		if err != nil {
			fmt.Println("failed:", err)
			continue
		}
		fmt.Println("ok", answer)
	}
	return nil
}

// echo is a bare server of net/http, which answers what it was sent.
func echo(socket string) error {
	err := listenAll(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = w.Write(body)
	}), socket, (*http.Server).Serve)
	if err != nil {
		return err
	}
	return obey(func([]string) (string, error) { return "", errors.New("an echo obeys nobody") })
}

// starter runs workers as plain child processes, as a node does in containers.
type starter struct{ program, library, model, dir string }

type child struct {
	cmd    *exec.Cmd
	socket string
	model  string
}

func (c *child) Socket() string     { return c.socket }
func (c *child) Owns(pid int) bool  { return pid == c.cmd.Process.Pid }
func (c *child) Load() channel.Load { return channel.Load{Path: c.model, Threads: 1} }
func (c *child) Wait() error        { return c.cmd.Wait() }
func (c *child) Kill() error        { return c.cmd.Process.Kill() }

// Start implements core.Starter.
func (s *starter) Start(context.Context) (core.Worker, error) {
	c := &child{socket: filepath.Join(s.dir, core.SocketName), model: s.model}
	c.cmd = exec.Command(s.program, append([]string{"onnxruntime", "--library", s.library}, core.WorkerArgs(c.socket)...)...)
	c.cmd.Stderr = io.Discard
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c, c.cmd.Start()
}

// frontServer is the serving system as the daemon has it: fronts, queues and
// workers. It obeys "serve NAME FILE", and "core NAME N", which asks N times
// without any protocol.
func frontServer(worker, library, dir string) error {
	registry := core.NewRegistry()
	if err := listenAll(serve.NewHandler(registry, serve.Options{}), filepath.Join(dir, "front.sock"), fastpath.Serve); err != nil {
		return err
	}
	ctx := context.Background()
	return obey(func(words []string) (string, error) {
		switch {
		case len(words) == 3 && words[0] == "serve":
			s := &starter{worker, library, words[2], filepath.Join(dir, words[1])}
			if err := registry.Add(core.Model{Name: words[1], Platform: "onnxruntime_onnx", Starter: s}); err != nil {
				return "", err
			}
			return "", registry.WaitReady(ctx, words[1])
		case len(words) == 3 && words[0] == "core":
			n, err := strconv.Atoi(words[2])
			if err != nil {
				return "", err
			}
			in := inputOf(words[1])
			inputs := []core.Input{{Name: in.Name, Type: in.Type, Shape: in.Shape, Data: core.Bytes(in.Data)}}
			for range n {
				r, err := registry.Infer(ctx, core.Request{Model: words[1], Inputs: inputs})
				if err != nil {
					return "", err
				}
				r.Free()
			}
			return "", nil
		}
		return "", fmt.Errorf("what is %q", words)
	})
}

// raw is the engine alone. It obeys "raw FILE ROWS N", which computes N times.
func raw(library string) error {
	l, err := onnx.Load(library)
	if err != nil {
		return err
	}
	sessions := map[string]*onnx.Session{}
	fmt.Println("ready -")
	return obey(func(words []string) (string, error) {
		if len(words) != 4 || words[0] != "raw" {
			return "", fmt.Errorf("what is %q", words)
		}
		rows, err := strconv.Atoi(words[2])
		if err != nil {
			return "", err
		}
		n, err := strconv.Atoi(words[3])
		if err != nil {
			return "", err
		}
		s := sessions[words[1]]
		if s == nil {
			if s, err = l.Open(words[1], 1); err != nil {
				return "", err
			}
			sessions[words[1]] = s
		}
		meta := s.Metadata()
		shape := meta.Inputs[0].Concrete(int64(rows), 1)
		size, err := shape.Bytes(tensor.FP32)
		if err != nil {
			return "", err
		}
		in, memory := []worker.Tensor{{Shape: shape, Data: floats(size / 4)}}, make([]byte, 1<<20)
		for range n {
			if err := s.Run(context.Background(), in, worker.NewOutput(&meta, memory)); err != nil {
				return "", err
			}
		}
		return "", nil
	})
}

// floats are the elements of all requests.
func floats(n int) []byte {
	b := make([]byte, 0, 4*n)
	for i := range n {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(i%97)/97))
	}
	return b
}
