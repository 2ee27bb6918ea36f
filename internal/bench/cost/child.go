package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
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
	"oscine.dev/oscine/internal/serve/engine"
	"oscine.dev/oscine/internal/serve/fastpath"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
	"oscine.dev/oscine/internal/unixconn"
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

// listenFast serves as the daemon does.
func listenFast(server *http.Server, l net.Listener) error {
	return fastpath.Serve(server, unixconn.Listener{Listener: l})
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
type starter struct {
	program, dir string
	subject
}

type child struct {
	cmd     *exec.Cmd
	socket  string
	subject subject
}

func (c *child) Socket() string    { return c.socket }
func (c *child) Owns(pid int) bool { return pid == c.cmd.Process.Pid }
func (c *child) Load() channel.Load {
	return channel.Load{Path: c.subject.file, Threads: 1, Options: c.subject.options}
}
func (c *child) Wait() error { return c.cmd.Wait() }
func (c *child) Kill() error { return c.cmd.Process.Kill() }

// Start implements core.Starter.
func (s *starter) Start(context.Context) (core.Worker, error) {
	c := &child{socket: filepath.Join(s.dir, core.SocketName), subject: s.subject}
	c.cmd = exec.Command(s.program, append([]string{s.engine, "--library", s.library}, core.WorkerArgs(c.socket)...)...)
	c.cmd.Stderr = io.Discard
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c, c.cmd.Start()
}

// frontServer is the serving system as the daemon has it: fronts, queues and
// workers. It obeys "serve NAME SUBJECT", and "core NAME N", which asks N times
// without any protocol.
func frontServer(worker, dir string) error {
	registry := core.NewRegistry()
	if err := listenAll(serve.NewHandler(registry, serve.Options{}), filepath.Join(dir, "front.sock"), listenFast); err != nil {
		return err
	}
	ctx := context.Background()
	return obey(func(words []string) (string, error) {
		switch {
		case len(words) == 3 && words[0] == "serve":
			what, err := parseSubject(words[2])
			if err != nil {
				return "", err
			}
			s := &starter{worker, filepath.Join(dir, words[1]), what}
			if err := registry.Add(core.Model{Name: words[1], Platform: what.engine, Instances: core.One(s)}); err != nil {
				return "", err
			}
			return "", registry.WaitReady(ctx, words[1])
		case len(words) == 3 && words[0] == "core":
			n, err := strconv.Atoi(words[2])
			if err != nil {
				return "", err
			}
			st, err := registry.Status(words[1])
			if err != nil {
				return "", err
			}
			in, err := inputFor(st.Inputs)
			if err != nil {
				return "", err
			}
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

// raw is engines alone. It obeys "open SUBJECT", which tells the model's inputs, and
// "raw SUBJECT ROWS N", which computes N times.
func raw() error {
	sessions := map[string]worker.Session{}
	open := func(word string) (worker.Session, error) {
		if s := sessions[word]; s != nil {
			return s, nil
		}
		what, err := parseSubject(word)
		if err != nil {
			return nil, err
		}
		s, err := engine.All()[what.engine].Open(what.library, what.file, worker.Options{Threads: 1, Values: what.options})
		if err == nil {
			sessions[word] = s
		}
		return s, err
	}
	memory := worker.NewBlock(answerSize)
	fmt.Println("ready -")
	return obey(func(words []string) (string, error) {
		switch {
		case len(words) == 2 && words[0] == "open":
			s, err := open(words[1])
			if err != nil {
				return "", err
			}
			text, err := json.Marshal(s.Metadata().Inputs)
			return string(text), err
		case len(words) == 4 && words[0] == "raw":
			s, err := open(words[1])
			if err != nil {
				return "", err
			}
			rows, err := strconv.Atoi(words[2])
			if err != nil {
				return "", err
			}
			n, err := strconv.Atoi(words[3])
			if err != nil {
				return "", err
			}
			meta := s.Metadata()
			shape := meta.Inputs[0].Concrete(int64(rows), 1)
			size, err := shape.Bytes(tensor.FP32)
			if err != nil {
				return "", err
			}
			block := worker.NewBlock(size)
			defer block.Free()
			in := []worker.Tensor{{Shape: shape, Data: block[:size]}}
			copy(in[0].Data, floats(size/4))
			for range n {
				if err := s.Run(context.Background(), in, worker.NewOutput(&meta, memory)); err != nil {
					return "", err
				}
			}
			return "", nil
		}
		return "", fmt.Errorf("what is %q", words)
	})
}

// answerSize has room for the outputs of all models.
const answerSize = 16 << 20

// floats are the elements of all requests.
func floats(n int) []byte {
	b := make([]byte, 0, 4*n)
	for i := range n {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(i%97)/97))
	}
	return b
}
