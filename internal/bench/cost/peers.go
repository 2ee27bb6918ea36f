package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"oscine.dev/oscine/internal/serve/oip"
	"oscine.dev/oscine/internal/tensor"
)

// peer is another model server, on the same models by the same engine.
type peer struct {
	name    string
	script  string // below peers
	pins    string // what it needs of Python's packages
	request func() ([]byte, error)
	ours    func(model string) string // the figure of ours in the same encoding
	goal    float64                   // times our processor time on the small model
}

func peers() []peer {
	plain := func(path string) func() ([]byte, error) {
		return func() ([]byte, error) {
			x, err := tensor.AppendJSON(nil, tensor.FP32, floats(features))
			return post(path, http.Header{"Content-Type": {"application/json"}}, fmt.Appendf(nil, `{"x":%s}`, x)), err
		}
	}
	infer := func(encode encoding) func() ([]byte, error) {
		return func() ([]byte, error) { return request("m", encode) }
	}
	return []peer{
		{"FastAPI and ONNX Runtime, JSON", "fastapi_server.py", "python.txt", plain("/infer"), jsonFigure, 20},
		{"MLServer, JSON", "mlserver_server.py", "python.txt", infer(oip.EncodeJSON), jsonFigure, 10},
		{"LitServe, JSON", "litserve_server.py", "litserve.txt", plain("/predict"), jsonFigure, 1},
		{"Triton (nvidia-pytriton), binary", "triton_server.py", "triton.txt", infer(oip.EncodeBinary), binaryFigure, 5},
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
	request, err := p.request()
	if err != nil {
		return nil, nil, err
	}
	s, err := start(ctx, strings.TrimSpace(string(python)), filepath.Join(here, "peers", p.script), file, strconv.Itoa(port))
	if err != nil {
		return nil, nil, err
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		c, err := dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), request)
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
	if err := build.Run(); err != nil {
		return "", err
	}
	return program, nil
}
