package web

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"oscine.dev/oscine/internal/api"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/hardware/hardwaretest"
	"oscine.dev/oscine/internal/node"
	"oscine.dev/oscine/internal/node/access"
	"oscine.dev/oscine/internal/node/identity"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pki"
)

// fakeNode tells of one machine, a few objects, events and lines, behind the
// real API over TLS.
type fakeNode struct {
	api.Node
	t       *testing.T
	machine *hardware.Machine
	list    *access.List

	identity *identity.Identity

	mu       sync.Mutex
	watchers int // streams that go on
}

func (n *fakeNode) Access() *access.List                { return n.list }
func (n *fakeNode) Identity() *identity.Identity        { return n.identity }
func (n *fakeNode) Releases() http.Handler              { return nil }
func (n *fakeNode) Kinds() object.Table                 { return object.Kinds() }
func (n *fakeNode) Inference() ([]string, http.Handler) { return nil, http.NotFoundHandler() }

func (n *fakeNode) Info() node.Info {
	return node.Info{Name: "edge1", Version: "0.1.0", Kernel: "6.18.5", Architecture: "amd64", Mode: node.Hosted, Uptime: 26 * time.Hour}
}

// stay is the rest of a stream.
func (n *fakeNode) stay(ctx context.Context) error {
	n.mu.Lock()
	n.watchers++
	n.mu.Unlock()
	<-ctx.Done()
	n.mu.Lock()
	n.watchers--
	n.mu.Unlock()
	return ctx.Err()
}

func (n *fakeNode) open() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.watchers
}

func (n *fakeNode) WatchHardware(ctx context.Context, every time.Duration, each func(hardware.News) error) error {
	if err := each(hardware.News{Machine: n.machine}); err != nil {
		return err
	}
	for turn := 0; ctx.Err() == nil; turn++ {
		l := &hardware.Load{CPUs: map[int]float64{}, Used: map[int]hardware.Bytes{}, Devices: map[string]hardware.DeviceLoad{}}
		for i, id := range n.machine.Online.IDs() {
			l.CPUs[id] = float64((i*7+turn*13)%100) / 100
		}
		for _, m := range n.machine.Nodes {
			l.Used[m.ID] = m.Bytes / 3
		}
		for i, a := range n.machine.Accelerators {
			l.Devices[a.ID] = hardware.DeviceLoad{Busy: float64(i%8) / 8, Used: a.Memory / 4, Celsius: 51, Watts: 300}
		}
		if err := each(hardware.News{Load: l}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(every):
		}
	}
	return n.stay(ctx)
}

const hostile = `<img src=x onerror="document.title='taken'">`

func states() []object.State {
	created := time.Now().Add(-90 * time.Minute)
	web := &object.Workload{Header: object.Header{APIVersion: object.APIVersion, Kind: object.KindWorkload, Metadata: object.Metadata{Name: "web"}}}
	web.Spec.Image = "docker.io/library/nginx:1.29"
	digits := &object.Model{Header: object.Header{APIVersion: object.APIVersion, Kind: object.KindModel, Metadata: object.Metadata{Name: "digits"}}}
	return []object.State{
		{Key: object.Key{Kind: object.KindWorkload, Name: "web"}, Object: web, Status: &object.WorkloadStatus{Observed: object.Observed{
			Phase: object.Running, Restarts: 2, CreatedAt: &created, Placement: &object.PlacementStatus{CPUs: "2-3", NUMANodes: "0", Exclusive: true, Devices: []string{"gpu0"}, Reason: "it fits"}}}},
		{Key: object.Key{Kind: object.KindWorkload, Name: "crawler"}, Object: web, Status: &object.WorkloadStatus{Observed: object.Observed{
			Phase: object.Waiting, CreatedAt: &created, Message: "exit status 1: " + hostile}}},
		{Key: object.Key{Kind: object.KindModel, Name: "digits"}, Object: digits, Status: &object.ModelStatus{Observed: object.Observed{
			Phase: object.Running, CreatedAt: &created, Placement: &object.PlacementStatus{CPUs: "4", NUMANodes: "0"}}, Engine: "onnxruntime", Requests: 1200, P99: object.Duration(4 * time.Millisecond)}},
	}
}

func (n *fakeNode) Get(object.Kind, string) ([]object.State, error) { return states(), nil }

func (n *fakeNode) Watch(ctx context.Context, kind object.Kind, name string, each func(string, object.State) error) error {
	for _, s := range states() {
		if kind != "" && (s.Kind != kind || s.Name != name) {
			continue
		}
		if err := each("set", s); err != nil {
			return err
		}
	}
	return n.stay(ctx)
}

func (n *fakeNode) Events(ctx context.Context, q node.EventQuery, each func(node.Event) error) error {
	for i := range 12 {
		at := time.Now().Add(time.Duration(i-30) * time.Minute)
		e := node.Event{First: at, Last: at, Count: 1 + i%3, Kind: object.KindWorkload, Name: "web", Reason: "Started", Message: fmt.Sprintf("process %d started", 400+i)}
		if i%4 == 3 {
			e = node.Event{First: at, Last: at, Count: 1, Device: "gpu3", Warning: true, Reason: "DeviceWears", Message: "gpu3: 12 corrected memory errors " + hostile}
		}
		if q.Name != "" && e.Name != q.Name {
			continue
		}
		if err := each(e); err != nil {
			return err
		}
	}
	return n.stay(ctx)
}

func (n *fakeNode) Logs(ctx context.Context, _ object.Kind, _ string, _ node.LogQuery, each func(node.LogLine) error) error {
	for i := range 40 {
		line := node.LogLine{Time: time.Now().Add(time.Duration(i-40) * time.Second), Stream: "stdout", Text: fmt.Sprintf(`10.0.0.%d "GET / HTTP/1.1" 200`, i)}
		if i%9 == 5 {
			line.Stream, line.Text = "stderr", "\x1b[31mupstream timed out\x1b[0m "+hostile
		}
		if err := each(line); err != nil {
			return err
		}
	}
	return n.stay(ctx)
}

func (n *fakeNode) Metrics() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "# TYPE "+durations+" histogram\n")
		total := 0
		for i := range 24 {
			total += max(0, 60-(i-9)*(i-9)*(1+i/12))
			fmt.Fprintf(w, "%s_bucket{model=\"digits\",le=\"%g\"} %d\n", durations, 0.0005*float64(8+i), total)
		}
		fmt.Fprintf(w, "%[1]s_bucket{model=\"digits\",le=\"+Inf\"} %[2]d\n%[1]s_sum{model=\"digits\"} 1.5\n%[1]s_count{model=\"digits\"} %[2]d\n", durations, total)
	})
}

// serve starts the node and the page of it.
func serve(t *testing.T) (*fakeNode, *Server) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "machine")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := hardwaretest.Server8GPU().Write(root); err != nil {
		t.Fatal(err)
	}
	machine, err := hardware.Discover(root)
	if err != nil {
		t.Fatal(err)
	}
	n := &fakeNode{t: t, machine: machine, list: &access.List{}}
	authority, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	own, err := pki.NewNode(authority, "edge1", []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	n.identity, err = identity.Open(filepath.Join(t.TempDir(), "identity.json"), object.MachineAPI{CA: string(authority.Certificate), Certificate: string(own.Certificate), Key: string(own.Key)}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	server := api.NewServer(n, slog.New(slog.DiscardHandler))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	page, err := Listen(clientOf(t, authority, l.Addr().String()), object.Kinds(), 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	served := make(chan error, 2)
	go func() { served <- server.Serve(ctx, l) }()
	go func() { served <- page.Serve(ctx) }()
	t.Cleanup(func() {
		end()
		for range 2 {
			if err := <-served; err != nil {
				t.Error(err)
			}
		}
	})
	return n, page
}

// clientOf is a client of a node of the authority. A reader's certificate is
// enough for it.
func clientOf(t *testing.T, authority pki.Pair, address string) *client.Client {
	t.Helper()
	reader, err := pki.NewClient(authority, "anna", pki.Reader, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(&client.Context{Address: address, ServerName: "edge1", CA: string(authority.Certificate), Certificate: string(reader.Certificate), Key: string(reader.Key)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// unreachable is a client of a node that is not there.
func unreachable(t *testing.T) *client.Client {
	t.Helper()
	authority, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return clientOf(t, authority, l.Addr().String())
}
