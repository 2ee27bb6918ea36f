package cli

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"
	"github.com/containerd/errdefs"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/machine"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/chat"
	"oscine.dev/oscine/internal/serve/oip"
)

func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{errors.New("disk gone"), 1},
		{object.Errors{{Reason: "wrong"}}, 2},
		{connect.NewError(connect.CodeInvalidArgument, errors.New("x")), 2},
		{machine.ErrNotFound, 3},
		{connect.NewError(connect.CodeNotFound, errors.New("x")), 3},
		{machine.ErrRunning, 4},
		{connect.NewError(connect.CodeFailedPrecondition, errors.New("x")), 4},
		{connect.NewError(connect.CodePermissionDenied, errors.New("x")), 5},
		{connect.NewError(connect.CodeResourceExhausted, errors.New("x")), 6},
		{errdefs.ErrUnavailable, 7},
		{connect.NewError(connect.CodeUnavailable, errors.New("x")), 7},
		{connect.NewError(connect.CodeUnknown, errors.New("x")), 1},
		{&oip.Error{Status: 400}, 2},
		{&oip.Error{Status: 404}, 3},
		{&chat.Error{Status: 404}, 3},
		{&oip.Error{Status: 401}, 5},
		{&chat.Error{Status: 403}, 5},
		{&chat.Error{Status: 429}, 6},
		{&oip.Error{Status: 503}, 7},
		{&oip.Error{Status: 500}, 1},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.ENOENT}, 3},
		{&url.Error{Op: "Get", URL: "http://x", Err: syscall.ECONNREFUSED}, 7},
		{&url.Error{Op: "Get", URL: "http://x", Err: &tls.CertificateVerificationError{Err: errors.New("x")}}, 1},
	} {
		if got := exitStatus(fmt.Errorf("get: %w", c.err)); got != c.want {
			t.Errorf("%v: got exit status %d, want %d", c.err, got, c.want)
		}
	}
}

// What a person named and what is wrong with it have their statuses in every command.
func TestExitStatusOfCommands(t *testing.T) {
	address := tokenServer(t)
	t.Setenv(tokenVariable, "tok-1")
	none, repository := filepath.Join(t.TempDir(), "none"), t.TempDir()
	if err := os.WriteFile(filepath.Join(repository, "config.pbtxt"), []byte("nope: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := &fakeNode{}
	n.serve(t)
	for _, test := range []struct {
		args []string
		want int
	}{
		{[]string{"serve", none + ".onnx"}, 3},
		{[]string{"serve", "oci:" + none + ":1"}, 3},
		{[]string{"serve", "http://127.0.0.1:1/x.onnx"}, 7},
		{[]string{"serve", address + "/x.onnx"}, 5},
		{[]string{"chat", none + ".gguf", "Hi"}, 3},
		{[]string{"infer", "m", none + ".png", "--url", address}, 3},
		{[]string{"infer", "m", "-f", none + ".json", "--url", address}, 3},
		{[]string{"model", "import", none}, 3},
		{[]string{"model", "import", repository}, 2},
		{[]string{"model", "push", none + ".onnx", "oci:x:1"}, 3},
		{[]string{"pack", "install", none}, 3},
		{[]string{"get", "models", "--context", "nope"}, 3},
	} {
		if status, _, errOut := n.command(t, test.args...); status != test.want {
			t.Errorf("%q: exit status %d, want %d: %s", test.args, status, test.want, errOut)
		}
	}
}

// A model without room ends serve with the status of that.
func TestServeWithoutRoom(t *testing.T) {
	n := &fakeNode{changes: []*pb.WatchResponse{{Object: &pb.Object{
		Kind: "Model", Name: "m",
		Manifest: structOf(t, `{"apiVersion":"oscine.dev/v1","kind":"Model","metadata":{"name":"m"},"spec":{"source":"sha256:`+strings.Repeat("0", 64)+`"}}`),
		Status:   structOf(t, `{"phase":"Unplaced","message":"99 CPUs"}`),
	}}}}
	n.serve(t)
	env := &Env{Out: io.Discard, Err: io.Discard, ConfigPath: filepath.Join(n.dir, "config"), Kinds: object.Kinds()}
	node, err := env.Client()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := awaitModel(t.Context(), env, node, object.Key{Kind: object.KindModel, Name: "m"}); exitStatus(err) != exitNoRoom {
		t.Errorf("got %v", err)
	}
}

// What no flag says, no manifest says: a traffic of 0 would get a model no requests.
func TestManifestOfNoFlags(t *testing.T) {
	o := serveOptions{name: "m"}
	if text, err := o.manifest("m.gguf", "sha256:"+strings.Repeat("0", 64)); err != nil || strings.Contains(text, "traffic") {
		t.Errorf("got %s %v", text, err)
	}
}

// Mistakes are told with the next step, and without the codes that programs read.
func TestErrorsSayTheNextStep(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	n := &fakeNode{}
	n.serve(t)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"serve", "oci:" + none + ":1"}, "there is no OCI layout " + none + " on this computer: write oci:FOLDER:TAG"},
		{[]string{"serve", "http://127.0.0.1:1/x.onnx"}, "is the address right, and the network there?"},
		{[]string{"serve", "HTTP://127.0.0.1:1/x.onnx"}, "is the address right, and the network there?"},
		{[]string{"serve", "ftp://127.0.0.1:1/x.onnx"}, "nothing is fetched by ftp: give a URL with http://"},
		{[]string{"pack", "install", none}, "there is no such file; oscine pack build makes one"},
		{[]string{"get", "models", "--context", "nope"}, "choose one of test, or make it with oscine config generate"},
		{[]string{"apply"}, "oscine: needs --file: see oscine apply --help"},
		{[]string{"wait", "model/m"}, "oscine: needs --for: see oscine wait --help"},
	} {
		if _, _, errOut := n.command(t, test.args...); !strings.Contains(errOut, test.want) {
			t.Errorf("%q: got %s, want %s", test.args, errOut, test.want)
		}
	}
	if got := message(fmt.Errorf("send m.onnx: %w", connect.NewError(connect.CodeNotFound, errors.New("no pack")))); got != "send m.onnx: no pack" {
		t.Errorf("got %q", got)
	}
}
