package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// peer is another model server, on the same models by the same engine.
type peer struct {
	name    string
	script  string // below peers
	pins    string // what it needs of Python's packages
	request func(model string) []byte
	goal    float64 // times our processor time on the small model
}

func peers() []peer {
	fastapi := func(string) []byte {
		return post("/infer", map[string]string{"Content-Type": "application/json"}, []byte(`{"x":`+numbers(floats(features))+`}`))
	}
	named := func(request func(string) []byte) func(string) []byte {
		return func(string) []byte { return request("m") }
	}
	return []peer{
		{"FastAPI and ONNX Runtime, JSON", "fastapi_server.py", "python.txt", fastapi, 20},
		{"MLServer, JSON", "mlserver_server.py", "python.txt", named(jsonRequest), 10},
		{"Triton (nvidia-pytriton), binary", "triton_server.py", "triton.txt", named(binaryRequest), 5},
	}
}

// here is this package's folder in the source tree.
const here = "internal/bench/cost"

// startPeer starts a peer with a model and waits until it answers.
func startPeer(ctx context.Context, p peer, file string, port int) (*process, load, error) {
	script := exec.CommandContext(ctx, "scripts/python-clients.sh", filepath.Join(here, "peers", p.pins))
	script.Stderr = os.Stderr
	// Triton's programs load the system's Python, which must be the one that runs.
	script.Env = append(os.Environ(), "PATH=/usr/bin:"+os.Getenv("PATH"))
	python, err := script.Output()
	if err != nil {
		return nil, nil, fmt.Errorf("its packages cannot be installed: %w", err)
	}
	s, err := start(ctx, "", strings.TrimSpace(string(python)), filepath.Join(here, "peers", p.script), file, strconv.Itoa(port))
	if err != nil {
		return nil, nil, err
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		c, err := dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), p.request("m"))
		if err == nil {
			if err = c.ask(); err == nil {
				return s, load{c}, nil
			}
			c.close()
		}
		if time.Now().After(end) {
			s.stop()
			return nil, nil, err
		}
	}
}

// buildFasthttp builds the echo server of fasthttp, whose module is its own: no
// program of Oscine needs it.
func buildFasthttp(ctx context.Context, dir string) (string, error) {
	program := filepath.Join(dir, "fasthttp")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	build.Dir, build.Stderr = filepath.Join(here, "peers", "fasthttp"), os.Stderr
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	return program, build.Run()
}
