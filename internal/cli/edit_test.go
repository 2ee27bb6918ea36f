package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	pbconnect "oscine.dev/oscine/internal/api/oscinepb/oscinepbconnect"
	"oscine.dev/oscine/internal/object"
)

// withWeb is a node that keeps the workload web and accepts all that is applied.
func withWeb(t *testing.T) (n *fakeNode, applied *[]string) {
	t.Helper()
	objects, err := object.Kinds().Parse(strings.NewReader(webManifest))
	if err != nil {
		t.Fatal(err)
	}
	n = &fakeNode{objects: []*pb.Object{asSent(t, objects[0], &object.WorkloadStatus{})}}
	applied = &[]string{}
	n.apply = func(req *pb.ApplyRequest) (*pb.ApplyResponse, error) {
		*applied = append(*applied, req.Manifest)
		return &pb.ApplyResponse{Results: []*pb.ApplyResult{{Kind: "Workload", Name: "web", Action: "changed"}}}, nil
	}
	n.serve(t)
	return n, applied
}

func TestDiff(t *testing.T) {
	n, applied := withWeb(t)
	file := filepath.Join(n.dir, "web.yaml")
	for _, c := range []struct {
		manifest string
		status   int
		want     []string // lines
	}{
		{webManifest, 0, nil},
		{strings.Replace(webManifest, "image: x", "image: x, restart: always", 1), 0, nil}, // the default
		{strings.Replace(webManifest, "image: x", "image: y", 1), 1, []string{"--- node/workload/web", "+++ file/workload/web", "-    image: x", "+    image: y"}},
		{strings.Replace(webManifest, "name: web", "name: other", 1), 1, []string{"+    name: other"}},
		{"kind: Nothing", 2, nil},
	} {
		if err := os.WriteFile(file, []byte(c.manifest), 0o600); err != nil {
			t.Fatal(err)
		}
		status, out, errOut := n.command(t, "diff", "-f", file)
		if status != c.status || (out == "") != (c.want == nil) {
			t.Errorf("%s: exit status %d, want %d\n%s%s", c.manifest, status, c.status, out, errOut)
		}
		for _, line := range c.want {
			if !strings.Contains(out, line+"\n") {
				t.Errorf("%s: no line %q in\n%s", c.manifest, line, out)
			}
		}
	}
	if status, _, errOut := n.command(t, "diff", "-f", filepath.Join(n.dir, "nowhere.yaml")); status != exitNotFound {
		t.Errorf("no file: exit status %d, want %d: %s", status, exitNotFound, errOut)
	}
	if len(*applied) > 0 {
		t.Errorf("diff applied %q", *applied)
	}
}

// machineChanges answers each Machine with the same changes.
type machineChanges struct {
	pbconnect.UnimplementedConfigurationHandler
	changes []*pb.ConfigurationChange
	asked   []*pb.ApplyConfigurationRequest
}

func (m *machineChanges) Apply(_ context.Context, req *connect.Request[pb.ApplyConfigurationRequest]) (*connect.Response[pb.ApplyConfigurationResponse], error) {
	m.asked = append(m.asked, req.Msg)
	return connect.NewResponse(&pb.ApplyConfigurationResponse{Changes: m.changes}), nil
}

func TestDiffOfMachine(t *testing.T) {
	answers := &machineChanges{}
	n := &fakeNode{configurations: answers}
	n.serve(t)
	file := filepath.Join(n.dir, "test.yaml")
	if status, out, errOut := n.command(t, "diff", "-f", file); status != 0 || out != "" {
		t.Errorf("the same: exit status %d, %q\n%s", status, out, errOut)
	}
	answers.changes = []*pb.ConfigurationChange{{Path: "spec.hostname", From: `"a"`, To: `"b"`}}
	if status, out, errOut := n.command(t, "diff", "-f", file); status != 1 || out != "~ spec.hostname: \"a\" → \"b\"\n" {
		t.Errorf("another: exit status %d, %q\n%s", status, out, errOut)
	}
	for _, req := range answers.asked {
		if !req.DryRun {
			t.Error("it was applied")
		}
	}
}

func TestEdit(t *testing.T) {
	for name, c := range map[string]struct {
		editor string // run with the file as $1
		status int
		want   string // in what is printed
		apply  string // in what is applied, "" for nothing
	}{
		"no change":         {`true`, 0, "nothing was changed", ""},
		"a change":          {`sed -i "s/image: x/image: y/"`, 0, "workload/web changed", "image: y"},
		"a mistake, mended": {`e() { if grep -q "^#! .*restart" "$1"; then sed -i "s/restart: .*/restart: never/" "$1"; else sed -i "s/restart: .*/restart: sometimes/" "$1"; fi; }; e`, 0, "workload/web changed", "restart: never"},
		"a mistake, left":   {`e() { sed -i "s/restart: .*/restart: sometimes/" "$1"; }; e`, 1, "must be one of always, on-failure, never", ""},
		"another name":      {`sed -i "s/name: web/name: other/"`, 1, "must stay the one object Workload/web", ""},
		"no editor":         {`/nonexistent/editor`, 1, "the editor", ""},
	} {
		t.Run(name, func(t *testing.T) {
			n, applied := withWeb(t)
			temp := t.TempDir()
			t.Setenv("TMPDIR", temp)
			t.Setenv("VISUAL", c.editor)
			status, out, errOut := n.command(t, "edit", "workload/web")
			if status == exitUsage {
				status = 1 // a manifest that is wrong
			}
			if status != c.status || !strings.Contains(out+errOut, c.want) {
				t.Errorf("exit status %d, want %d with %q\n%s%s", status, c.status, c.want, out, errOut)
			}
			if got := strings.Join(*applied, "\n"); (c.apply == "") != (got == "") || !strings.Contains(got, c.apply) || strings.Contains(got, mark) {
				t.Errorf("applied %q, want %q", got, c.apply)
			}
			left, err := filepath.Glob(filepath.Join(temp, "oscine-*"))
			if err != nil {
				t.Fatal(err)
			}
			if c.status == 0 && len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if c.status != 0 && (len(left) != 1 || !strings.Contains(errOut, left[0])) {
				t.Errorf("the text must be kept and named, got %v in %s", left, errOut)
			}
		})
	}
}
