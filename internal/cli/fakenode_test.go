package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	pbconnect "oscine.dev/oscine/internal/api/oscinepb/oscinepbconnect"
	"oscine.dev/oscine/internal/object"
)

// fakeNode answers the calls about objects as a test says, behind the real
// protocol and certificates.
type fakeNode struct {
	pbconnect.UnimplementedObjectsHandler
	pbconnect.UnimplementedLogsHandler
	pbconnect.UnimplementedWorkloadsHandler

	apply   func(*pb.ApplyRequest) (*pb.ApplyResponse, error)
	objects []*pb.Object
	changes []*pb.WatchResponse // that Watch sends before it ends
	deleted []string
	told    []string        // to stop, start or restart
	asked   *pb.LogsRequest // of the log

	upgrades       pbconnect.UpgradesHandler      // nil for none
	configurations pbconnect.ConfigurationHandler // nil for none
	installation   pbconnect.InstallationHandler  // nil for none
	whole          pbconnect.NodeHandler          // nil for none

	metrics http.HandlerFunc        // nil for none
	models  pbconnect.ModelsHandler // nil for none
	tokens  pbconnect.TokensHandler // nil for none
	access  pbconnect.AccessHandler // nil for none
	answers http.Handler            // requests to models, nil for none

	address string

	dir string // of the client's configuration
}

func (n *fakeNode) Apply(_ context.Context, req *connect.Request[pb.ApplyRequest]) (*connect.Response[pb.ApplyResponse], error) {
	resp, err := n.apply(req.Msg)
	return connect.NewResponse(resp), err
}

func (n *fakeNode) Get(_ context.Context, req *connect.Request[pb.GetRequest]) (*connect.Response[pb.GetResponse], error) {
	resp := &pb.GetResponse{}
	for _, obj := range n.objects {
		if (req.Msg.Kind == "" || req.Msg.Kind == obj.Kind) && (req.Msg.Name == "" || req.Msg.Name == obj.Name) {
			resp.Objects = append(resp.Objects, obj)
		}
	}
	if req.Msg.Name != "" && len(resp.Objects) == 0 {
		return nil, connect.NewError(connect.CodeNotFound, errors.New(req.Msg.Kind+" "+req.Msg.Name+": not found"))
	}
	return connect.NewResponse(resp), nil
}

func (n *fakeNode) Watch(_ context.Context, _ *connect.Request[pb.GetRequest], stream *connect.ServerStream[pb.WatchResponse]) error {
	for _, change := range n.changes {
		if err := stream.Send(change); err != nil {
			return err
		}
	}
	return nil
}

func (n *fakeNode) Delete(_ context.Context, req *connect.Request[pb.DeleteRequest]) (*connect.Response[pb.DeleteResponse], error) {
	n.deleted = append(n.deleted, req.Msg.Kind+"/"+req.Msg.Name)
	return connect.NewResponse(&pb.DeleteResponse{}), nil
}

func (n *fakeNode) Stop(_ context.Context, req *connect.Request[pb.StopRequest]) (*connect.Response[pb.StopResponse], error) {
	return connect.NewResponse(&pb.StopResponse{}), n.tell("stop", req.Msg.Kind, req.Msg.Name)
}

func (n *fakeNode) Start(_ context.Context, req *connect.Request[pb.StartRequest]) (*connect.Response[pb.StartResponse], error) {
	return connect.NewResponse(&pb.StartResponse{}), n.tell("start", req.Msg.Kind, req.Msg.Name)
}

func (n *fakeNode) Restart(_ context.Context, req *connect.Request[pb.RestartRequest]) (*connect.Response[pb.RestartResponse], error) {
	return connect.NewResponse(&pb.RestartResponse{}), n.tell("restart", req.Msg.Kind, req.Msg.Name)
}

// tell notes what was asked for an object, which has to be there.
func (n *fakeNode) tell(verb, kind, name string) error {
	for _, obj := range n.objects {
		if obj.Kind == kind && obj.Name == name {
			n.told = append(n.told, verb+" "+kind+"/"+name)
			return nil
		}
	}
	return connect.NewError(connect.CodeNotFound, errors.New(kind+" "+name+": not found"))
}

// serve starts the node on loopback, as the current context of its own
// configuration.
func (n *fakeNode) serve(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.dir, n.address = t.TempDir(), l.Addr().String()
	if status, _, errOut := n.command(t, "config", "generate", "test", "--with-key", "--output", n.dir, "--address", l.Addr().String()); status != 0 {
		t.Fatal(errOut)
	}
	file, err := os.Open(filepath.Join(n.dir, "test.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	machine, err := object.ParseMachine(file)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(machine.Spec.API.Certificate), []byte(machine.Spec.API.Key))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(pbconnect.NewObjectsHandler(n))
	mux.Handle(pbconnect.NewLogsHandler(n))
	mux.Handle(pbconnect.NewWorkloadsHandler(n))
	if n.models != nil {
		mux.Handle(pbconnect.NewModelsHandler(n.models))
	}
	if n.upgrades != nil {
		mux.Handle(pbconnect.NewUpgradesHandler(n.upgrades))
	}
	if n.configurations != nil {
		mux.Handle(pbconnect.NewConfigurationHandler(n.configurations))
	}
	if n.installation != nil {
		mux.Handle(pbconnect.NewInstallationHandler(n.installation))
	}
	if n.whole != nil {
		mux.Handle(pbconnect.NewNodeHandler(n.whole))
	}
	if n.tokens != nil {
		mux.Handle(pbconnect.NewTokensHandler(n.tokens))
	}
	if n.access != nil {
		mux.Handle(pbconnect.NewAccessHandler(n.access))
	}
	if n.answers != nil {
		mux.Handle("/v1/", n.answers)
		mux.Handle("/v2/", n.answers)
	}
	if n.metrics != nil {
		mux.HandleFunc("/metrics", n.metrics)
	}
	server := &http.Server{Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}}
	go server.ServeTLS(l, "", "")
	t.Cleanup(func() { server.Close() })
}

// command runs a command against the node.
func (n *fakeNode) command(t *testing.T, args ...string) (status int, out, errOut string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	env := &Env{In: strings.NewReader(""), Out: &stdout, Err: &stderr, Kinds: object.Kinds()}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	status = env.Run(ctx, append([]string{"--config", filepath.Join(n.dir, "config")}, args...))
	return status, stdout.String(), stderr.String()
}

const webManifest = "apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: web}\nspec: {image: x}\n"

// Apply, its dry run and place on a node ask the node the same, and tell all
// that it says of placement, its bad bytes escaped.
func TestPlacementIsTheNodes(t *testing.T) {
	var asked []*pb.ApplyRequest
	n := &fakeNode{}
	n.apply = func(req *pb.ApplyRequest) (*pb.ApplyResponse, error) {
		asked = append(asked, proto.CloneOf(req))
		web := &pb.ApplyResult{Kind: "Workload", Name: "web", Action: "created"}
		if !req.Displace {
			web.Unplaced = "it does not fit"
			web.Refusal = structOf(t, `{"request":"workload-web","failures":[{"constraint":"class","problem":"taken by \u001b[2Jothers","remedy":"apply it again with --displace"}]}`)
			return &pb.ApplyResponse{Results: []*pb.ApplyResult{web}}, nil
		}
		web.Placement = structOf(t, `{"request":{"name":"workload-web","class":"realtime","exclusive":true},"cpus":[1,2],"reason":"it fits"}`)
		web.Displaces = []*pb.Displaced{{Kind: "Model", Name: "digits", Why: "web needs \x1b[2Jits place"}}
		return &pb.ApplyResponse{Results: []*pb.ApplyResult{web}}, nil
	}
	n.serve(t)
	file := filepath.Join(n.dir, "web.yaml")
	if err := os.WriteFile(file, []byte(webManifest), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		status int
		want   string
		dryRun bool
	}{
		{[]string{"apply", "-f", file}, 0, "workload/web created\n  waits: it does not fit\n", false},
		{[]string{"apply", "--displace", "-f", file}, 0, "workload/web created\n  on CPUs 1-2\n  displaces model/digits: web needs \\x1b[2Jits place\n", false},
		{[]string{"apply", "--displace", "--dry-run", "-f", file}, 0, "workload/web created (dry run)\n  on CPUs 1-2\n  displaces model/digits: web needs \\x1b[2Jits place\n", true},
		{[]string{"place", "-f", file}, 1, "workload-web does not fit:\n  class: taken by \\x1b[2Jothers\n      → apply it again with --displace\n", true},
		{[]string{"place", "--displace", "-f", file}, 0, "workload-web\n  CPUs        1-2 exclusive\n  displaces   model/digits: web needs \\x1b[2Jits place\n  why         it fits\n", true},
		{[]string{"place", "--displace", "--machine", "test", "-f", file}, 0, "workload-web\n  CPUs        1-2 exclusive\n  displaces   model/digits: web needs \\x1b[2Jits place\n  why         it fits\n", true},
	} {
		asked = nil
		status, out, errOut := n.command(t, c.args...)
		if status != c.status || out != c.want || errOut != "" {
			t.Errorf("%q: exit status %d, %s\ngot  %q\nwant %q", c.args, status, errOut, out, c.want)
		}
		if len(asked) != 1 || asked[0].DryRun != c.dryRun || !strings.Contains(asked[0].Manifest, "name: web") {
			t.Errorf("%q asked the node for %v", c.args, asked)
		}
	}
}
