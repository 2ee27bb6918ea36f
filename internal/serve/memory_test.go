package serve_test

import (
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
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/serve"
	"oscine.dev/oscine/internal/serve/oip"
	"oscine.dev/oscine/internal/serve/servetest"
	"oscine.dev/oscine/internal/tensor"
)

// memorySocket serves the doubler m on a Unix socket.
func memorySocket(t *testing.T) string {
	t.Helper()
	r := servetest.New(t)
	r.Ready("m")
	return overUnix(t, serve.NewHandler(r.Registry, serve.Options{}))
}

func openMemory(t *testing.T, socket string) *oip.Memory {
	t.Helper()
	m, err := oip.OpenMemory(socket, 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func input(rows int64, offset, size int) []oip.Placed {
	return []oip.Placed{{Spec: tensor.Spec{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{rows, 4}}, Offset: offset, Size: size}}
}

func output(offset, size int) []oip.Placed {
	return []oip.Placed{{Spec: tensor.Spec{Name: "y"}, Offset: offset, Size: size}}
}

func TestMemory(t *testing.T) {
	m := openMemory(t, memorySocket(t))
	defer m.Close()
	for round := range 3 {
		for rows := int64(1); rows < 200; rows += 66 {
			n := int(16 * rows)
			for at := 0; at < n; at += 4 {
				binary.LittleEndian.PutUint32(m.Bytes()[64+at:], math.Float32bits(float32(at+round)))
			}
			got, err := m.Infer(t.Context(), "m", input(rows, 64, n), output(8192, 8192))
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 1 || got[0].Size != n || got[0].Type != tensor.FP32 || got[0].Shape.String() != fmt.Sprintf("[%d,4]", rows) {
				t.Fatalf("got %+v", got)
			}
			for at := 0; at < n; at += 4 {
				if f := math.Float32frombits(binary.LittleEndian.Uint32(m.Bytes()[8192+at:])); f != 2*float32(at+round) {
					t.Fatalf("element %d: got %g", at/4, f)
				}
			}
		}
	}
}

func TestMemoryRefusals(t *testing.T) {
	socket := memorySocket(t)
	m := openMemory(t, socket)
	defer m.Close()
	for name, test := range map[string]struct {
		in, out []oip.Placed
		want    string
	}{
		"input outside":         {input(1, 1<<16-8, 16), output(0, 16), "has 65536 bytes, not 16 from 65528 on"},
		"negative":              {input(1, -16, 16), output(0, 16), "not 16 from -16 on"},
		"input of another size": {input(2, 0, 16), output(0, 16), "shared_memory_byte_size is 16, shape [2,4] of FP32 needs 32"},
		"output outside":        {input(1, 0, 16), output(0, 1<<16+1), "not 65537 from 0 on"},
		"output too small":      {input(2, 0, 32), output(0, 16), "has 32 bytes, shared_memory_byte_size is 16"},
	} {
		_, err := m.Infer(t.Context(), "m", test.in, test.out)
		var refusal *oip.Error
		if !errors.As(err, &refusal) || refusal.Status != http.StatusBadRequest || !strings.Contains(refusal.Text, test.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := m.Infer(t.Context(), "m", input(1, 0, 16), output(64, 16)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	// Another connection has none of it, and a port has none at all.
	body := `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"parameters":{"shared_memory_region":"memory","shared_memory_byte_size":16}}]}`
	other := oip.Unix(socket)
	defer other.HTTP.CloseIdleConnections()
	for want, url := range map[string]string{
		`region \"memory\" is not registered on this connection`: "http://node/v2/models/m/infer",
		"no memfd came with the request":                         "http://node/v2/systemsharedmemory/region/memory/register",
	} {
		text := body
		if strings.HasSuffix(url, "register") {
			text = `{"key":"/dev/shm/x","offset":0,"byte_size":16}`
		}
		response, err := other.HTTP.Post(url, "", strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 1000)
		n, _ := response.Body.Read(answer)
		response.Body.Close()
		if response.StatusCode != http.StatusBadRequest || !strings.Contains(string(answer[:n]), want) {
			t.Errorf("got %d %s, want %s", response.StatusCode, answer[:n], want)
		}
	}
}

// shared counts the descriptors of clients' memory that this process has, and
// those of the clients themselves.
func shared(t *testing.T) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if name, err := os.Readlink(f); err == nil && strings.HasPrefix(name, "/memfd:inference") {
			n++
		}
	}
	return n
}

// A client that goes leaves nothing behind, whatever it was doing.
func TestMemoryOfClientsThatGo(t *testing.T) {
	socket := memorySocket(t)
	for i := range 20 {
		m := openMemory(t, socket)
		if i%2 == 0 {
			binary.LittleEndian.PutUint32(m.Bytes(), math.Float32bits(servetest.Sloth))
			go func() { _, _ = m.Infer(t.Context(), "m", input(1, 0, 16), output(64, 16)) }()
			time.Sleep(10 * time.Millisecond)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	for range 500 {
		if shared(t) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d descriptors are left", shared(t))
}

// A request whose context has ended returns, whenever it ended, also from a node that
// does not answer.
func TestMemoryCancelled(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Read(make([]byte, 4096))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
		_, _ = io.Copy(io.Discard, c)
	}()
	m := openMemory(t, socket)
	defer m.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan bool)
	go func() {
		defer close(done)
		for range 20000 {
			if _, err := m.Infer(ctx, "m", nil, nil); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
				return
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("a cancelled request does not return")
	}
}

// What is no sealed memfd is refused, and does not stay open.
func TestHostileDescriptors(t *testing.T) {
	socket := memorySocket(t)
	unsealed, err := unix.MemfdCreate("inference", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(unsealed)
	for _, send := range [][]int{{unsealed}, {0}, {unsealed, 0, 1, 2}, {unsealed, unsealed}} {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			body := `{"offset":0,"byte_size":1}`
			request := fmt.Sprintf("POST /v2/systemsharedmemory/region/r/register HTTP/1.1\r\nHost: n\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			if err := unix.Sendmsg(fd, []byte(request), unix.UnixRights(send...), nil, 0); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 4096)
			n, err := unix.Read(fd, answer)
			if err != nil || !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 400") {
				t.Errorf("%v: got %.200s, %v", send, answer[:max(n, 0)], err)
			}
		}
		unix.Close(fd)
	}
	for range 500 {
		if shared(t) == 1 {
			return // the test's own
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d descriptors are left", shared(t))
}

// The client in C, with a program around it.
func TestMemoryInC(t *testing.T) {
	compiler, err := exec.LookPath("cc")
	if err != nil {
		t.Skip(err)
	}
	program := filepath.Join(t.TempDir(), "client")
	build := exec.CommandContext(t.Context(), compiler, "-Wall", "-Wextra", "-Werror", "-O1", "-I../../docs/examples", "-o", program, "testdata/memory.c", "../../docs/examples/inference_memory.c")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), program, memorySocket(t)).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "answers agree") {
		t.Errorf("%v\n%s", err, out)
	}
}
