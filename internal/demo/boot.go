package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/machine"
	"oscine.dev/oscine/internal/object"
)

// bootTimeout bounds the wait for the API, which under emulation on a busy
// host takes minutes.
const bootTimeout = 10 * time.Minute

const apiPort = 7443

// startMachine configures and starts the machine.
func (r *run) startMachine(ctx context.Context) (string, error) {
	port, err := freePort()
	if err != nil {
		return "", err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	if err := r.Tools.Generate(r.config(), r.dir(), Name, address); err != nil {
		return "", fmt.Errorf("make keys and configuration: %w", err)
	}
	manifest, err := os.ReadFile(filepath.Join(r.dir(), Name+".yaml"))
	if err != nil {
		return "", err
	}
	if r.Upgrade {
		trust, err := r.releaseKeys()
		if err != nil {
			return "", fmt.Errorf("make the keys of releases: %w", err)
		}
		manifest = append(manifest, trust...)
	}
	if r.node, err = r.Tools.Connect(r.config(), Name); err != nil {
		return "", err
	}
	m, err := machine.Start(ctx, machine.Options{
		Name: Name, Image: r.image, Arch: r.Arch, Accel: r.Accel, Direct: r.Direct, Config: manifest,
		Ports: []machine.Port{{Host: port, Guest: apiPort}},
	})
	if err != nil {
		return "", err
	}
	r.machine = m
	boot := "UEFI, boot loader and signed kernel image"
	if r.Direct {
		boot = "its kernel directly"
	}
	r.report.Machine = MachineReport{Arch: r.Arch, Accel: m.Accel(), Direct: r.Direct, CPUs: m.Options().CPUs, MemoryBytes: m.Options().Memory}
	how := "KVM"
	if m.Accel() == "tcg" {
		how = "emulation (KVM boots no kernel here), so times are many times longer than on metal"
		if r.Accel == "tcg" {
			how = "emulation, so times are many times longer than on metal"
		}
	}
	return fmt.Sprintf("boots %s by %s", boot, how), nil
}

// freePort finds a port of this host that is free now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// awaitAPI waits until the node answers over mutual TLS.
func (r *run) awaitAPI(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	for {
		info, err := r.info(ctx)
		if err == nil {
			return r.apiAnswered(info)
		}
		switch {
		case !r.machine.Running():
			return "", errors.New("the machine went off")
		case ctx.Err() != nil:
			return "", fmt.Errorf("no answer after %v: %w", bootTimeout, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (r *run) info(ctx context.Context) (*pb.InfoResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := r.node.Node.Info(ctx, connect.NewRequest(&pb.InfoRequest{}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func (r *run) apiAnswered(info *pb.InfoResponse) (string, error) {
	used, err := r.machine.CPUTime()
	if err != nil {
		return "", err
	}
	r.report.API = Moment{Seconds: seconds(time.Since(r.machine.Started())), CPUSeconds: seconds(used)}
	r.report.Machine.Kernel, r.report.Machine.Version = info.Kernel, info.Version
	r.report.Machine.ReadySeconds = info.ReadySeconds
	return fmt.Sprintf("Oscine %s, Linux %s, answers %.1f s after power-on (%.1f CPU-seconds of QEMU)", info.Version, info.Kernel, r.report.API.Seconds, r.report.API.CPUSeconds), nil
}

// console is the machine's serial console.
func (r *run) console() string {
	if r.machine == nil {
		return ""
	}
	text, err := os.ReadFile(r.machine.ConsoleLog())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// nodeLogs is what the node and the model's worker wrote; the console, when
// the node cannot be asked.
func (r *run) nodeLogs() string {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	var b strings.Builder
	for _, source := range []*pb.LogsRequest{{Name: "oscined", Tail: 15}, {Kind: string(object.KindModel), Name: Model, Tail: 12}} {
		stream, err := r.node.Logs.Read(ctx, connect.NewRequest(source))
		if err != nil {
			continue
		}
		for stream.Receive() {
			fmt.Fprintf(&b, "%s%s: %s\n", strings.ToLower(source.Kind), source.Name, stream.Msg().Text)
		}
		_ = stream.Close()
	}
	if b.Len() == 0 {
		scanner := bufio.NewScanner(strings.NewReader(r.console()))
		for scanner.Scan() {
			fmt.Fprintln(&b, scanner.Text())
		}
	}
	return b.String()
}
