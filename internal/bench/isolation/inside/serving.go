package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"oscine.dev/oscine/internal/bench/isolation/figure"
	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/serve"
	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// servedBoth compares the serving path with and without urgency.
func (b *bench) servedBoth() (err error) {
	if b.iso == nil {
		if b.iso, err = isolate.Open(isolate.Options{Own: true}); err != nil {
			return err
		}
	}
	if err := b.served(figure.NoUrgency, false); err != nil {
		return fmt.Errorf("%s: %w", figure.NoUrgency, err)
	}
	if err := b.served(figure.Served, true); err != nil {
		return fmt.Errorf("%s: %w", figure.Served, err)
	}
	return nil
}

// served measures the product's own serving path, all of it but the network:
// protocol, queue, shared memory, worker process. For each CPU one model answers
// tight requests and one loose ones, beside full batch load.
func (b *bench) served(name string, urgent bool) (err error) {
	load, err := b.batch(nil)
	if err != nil {
		return err
	}
	defer func() {
		load.Kill()
		err = errors.Join(err, b.iso.Release("load"))
	}()
	r := b.traffic()
	registry := core.NewRegistry()
	for i := range len(r.Kinds) * b.cpus {
		k := &r.Kinds[i/b.cpus]
		name := modelName(k, i%b.cpus)
		starter := &modelStarter{b: b, id: "model-" + name}
		model := core.Model{Name: name, Instances: core.One(starter), Objective: k.Deadline}
		if urgent {
			model.Instances[0].Urgency = b.iso.Priority(starter.id)
		}
		if err := registry.Add(model); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, registry.Remove(name), b.iso.Release(starter.id)) }()
		if err := registry.WaitReady(b.ctx, name); err != nil {
			return err
		}
	}
	f := figure.Figure{Name: name, CPUs: b.cpus, Requests: b.play(r, serve.NewHandler(registry, serve.Options{})), Load: &latency.LoadReport{}}
	for _, s := range registry.List(b.ctx) {
		if s.Errors > 0 || s.PriorityUnavailable != "" {
			return fmt.Errorf("model %s: %d errors; urgency: %s", s.Name, s.Errors, s.PriorityUnavailable)
		}
	}
	if err := load.End(f.Load); err != nil {
		return err
	}
	return print(f)
}

func modelName(k *latency.RequestKind, i int) string { return fmt.Sprintf("%s-%d", k.Name, i) }

// play sends the requests when they are due, to the models of a kind in turn.
func (b *bench) play(r latency.Requests, h http.Handler) *latency.RequestReport {
	all := r.Schedule(linux.Monotonic() + int64(200*time.Millisecond))
	var wg sync.WaitGroup
	for i := range all {
		time.Sleep(time.Duration(all[i].At - linux.Monotonic()))
		wg.Go(func() {
			a := &all[i]
			k := &r.Kinds[a.Kind]
			a.Took = -1
			if ask(h, modelName(k, i%b.cpus), k.Service) == http.StatusOK {
				a.Took = time.Duration(linux.Monotonic() - a.At)
			}
		})
	}
	wg.Wait()
	return r.Report(all)
}

func ask(h http.Handler, model string, service time.Duration) int {
	text := fmt.Sprintf(`{"inputs":[{"name":"us","shape":[1],"datatype":"INT64","data":[%d]}]}`, service.Microseconds())
	request, err := http.NewRequest(http.MethodPost, "/v2/models/"+model+"/infer", bytes.NewReader([]byte(text)))
	if err != nil {
		return 0
	}
	answer := &answer{header: http.Header{}, status: http.StatusOK}
	h.ServeHTTP(answer, request)
	return answer.status
}

// answer is what a client without a network receives.
type answer struct {
	header http.Header
	status int
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) Write(b []byte) (int, error) { return len(b), nil }
func (a *answer) WriteHeader(status int)      { a.status = status }

// modelStarter starts this program as the worker of a model, as an interactive
// workload.
type modelStarter struct {
	b  *bench
	id string
}

type modelProcess struct {
	cmd    *exec.Cmd
	socket string
}

func (p *modelProcess) Socket() string    { return p.socket }
func (p *modelProcess) Owns(pid int) bool { return pid == p.cmd.Process.Pid }
func (p *modelProcess) Wait() error       { return p.cmd.Wait() }
func (p *modelProcess) Kill() error       { return p.cmd.Process.Kill() }

// Load implements core.Worker: the engine reads no file.
func (p *modelProcess) Load() channel.Load { return channel.Load{Path: "/", Threads: 1} }

func (s *modelStarter) Start(context.Context) (core.Worker, error) {
	if err := s.b.iso.Prepare(isolate.Spec{ID: s.id, Class: isolate.Interactive}); err != nil {
		return nil, err
	}
	dir, err := os.Open(s.b.iso.Cgroup(s.id))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	p := &modelProcess{socket: filepath.Join(os.TempDir(), s.id, core.SocketName)}
	p.cmd = exec.Command("/init", "model", p.socket)
	// Computing is an engine's C code, which the Go runtime does not interrupt.
	p.cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	p.cmd.Stdout, p.cmd.Stderr = io.Discard, os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	return p, s.b.iso.Apply(s.id, p.cmd.Process.Pid)
}

// model is an engine whose inference is to compute for as long as its input
// says.
type model struct{}

// runModel is the worker program.
func runModel(socket string) int {
	return worker.Main("model", model{}, core.WorkerArgs(socket), os.Stderr)
}

func (model) Flags(*flag.FlagSet) {}

func (model) Options() []string { return nil }

func (m model) Open(string, worker.Options) (worker.Session, error) { return m, nil }

func (model) Close() error { return nil }

func (model) Metadata() channel.Metadata {
	spec := func(name string) []tensor.Spec {
		return []tensor.Spec{{Name: name, Type: tensor.Int64, Shape: tensor.Shape{1}}}
	}
	return channel.Metadata{Engine: "spinner 1", Inputs: spec("us"), Outputs: spec("done")}
}

func (model) Run(_ context.Context, in []worker.Tensor, out *worker.Output) error {
	latency.Spend(time.Duration(binary.LittleEndian.Uint64(in[0].Data)) * time.Microsecond)
	return out.Put(in[0].Shape, in[0].Data)
}
