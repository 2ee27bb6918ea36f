package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	pbconnect "oscine.dev/oscine/internal/api/oscinepb/oscinepbconnect"
)

// diskNode has two disks, and installs on the second.
type diskNode struct {
	pbconnect.UnimplementedInstallationHandler
	asked *pb.InstallRequest
	fails error
}

func (d *diskNode) ListDisks(context.Context, *connect.Request[pb.ListDisksRequest]) (*connect.Response[pb.ListDisksResponse], error) {
	return connect.NewResponse(&pb.ListDisksResponse{Disks: []*pb.Disk{
		{Name: "vda", Path: "/dev/vda", Names: []string{"/dev/vda"}, SizeBytes: 8 << 30, Problem: "this machine runs from it: boot another"},
		{
			Name: "nvme0n1", Path: "/dev/disk/by-id/nvme-X_1", Names: []string{"/dev/disk/by-id/nvme-X_1", "/dev/nvme0n1"}, Model: "X", SizeBytes: 1 << 40,
			Contents: []*pb.DiskContent{{Device: "nvme0n1p1", Name: "photos", SizeBytes: 1 << 39, Type: "ext4", Label: "\x1b[2Jold"}, {Device: "nvme0n1p2"}},
		},
	}}), nil
}

func (d *diskNode) Install(_ context.Context, req *connect.Request[pb.InstallRequest], stream *connect.ServerStream[pb.InstallResponse]) error {
	d.asked = req.Msg
	if d.fails != nil {
		return d.fails
	}
	for _, m := range []*pb.InstallResponse{{Step: "write the root", DoneBytes: 1, TotalBytes: 2}, {Step: "write the root", DoneBytes: 2, TotalBytes: 2}, {Version: "1.2.3"}} {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	return nil
}

func TestInstallOnNode(t *testing.T) {
	d := &diskNode{}
	n := &fakeNode{installation: d}
	n.serve(t)
	status, out, errOut := n.command(t, "install", "--list")
	if status != 0 || !strings.Contains(out, "no: this machine runs from it") || !strings.Contains(out, `ext4 \x1b[2Jold, nvme0n1p2`) {
		t.Errorf("status %d: %s%s", status, out, errOut)
	}
	for _, c := range []struct {
		args   []string
		status int
		want   string // on standard error
	}{
		{[]string{"--to", "vda", "--yes"}, 1, "/dev/vda is refused: this machine runs from it"},
		{[]string{"--to", "sdz", "--yes"}, 1, "the node has no disk sdz"},
		{[]string{"--to", "nvme0n1"}, exitUsage, "nothing was changed: nobody can be asked here, so give --yes"},
	} {
		status, out, errOut := n.command(t, append([]string{"install"}, c.args...)...)
		if status != c.status || !strings.Contains(errOut, c.want) || d.asked != nil {
			t.Errorf("%v: status %d: %s%s", c.args, status, out, errOut)
		}
	}
	status, out, errOut = n.command(t, "install", "--to", "nvme-X_1", "--unconfigured", "--force", "--yes")
	if status != 0 || !strings.Contains(out, "1.2.3 is on /dev/disk/by-id/nvme-X_1") {
		t.Errorf("status %d: %s%s", status, out, errOut)
	}
	for _, want := range []string{"All of it will be erased:", "photos", `\x1b[2Jold`, "write the root\n"} {
		if !strings.Contains(errOut, want) {
			t.Errorf("%q is missing in\n%s", want, errOut)
		}
	}
	if a := d.asked; a.Disk != "/dev/nvme0n1" || a.Path != "/dev/disk/by-id/nvme-X_1" || a.SizeBytes != 1<<40 || !a.Unconfigured || !a.Force || a.KeepData || a.Machine != "" {
		t.Errorf("asked for %v", a)
	}
	d.fails = connect.NewError(connect.CodeFailedPrecondition, context.DeadlineExceeded)
	if status, out, _ = n.command(t, "install", "--to", "nvme0n1", "--yes"); status == 0 || out != "" {
		t.Errorf("a failure: status %d: %s", status, out)
	}
}

func TestAskName(t *testing.T) {
	for answer, want := range map[string]bool{"vdb\n": true, " vdb": true, "yes\n": false, "": false, "VDB\n": false} {
		var said bytes.Buffer
		env := &Env{In: strings.NewReader(answer), Err: &said}
		if err := askName(env, "vdb"); (err == nil) != want || !strings.Contains(said.String(), "Type vdb to go on") {
			t.Errorf("%q: got %v, %s", answer, err, said.String())
		}
	}
}

// resetNode counts how often it is reset.
type resetNode struct {
	pbconnect.UnimplementedNodeHandler
	resets int
	fails  error
}

func (r *resetNode) Info(context.Context, *connect.Request[pb.InfoRequest]) (*connect.Response[pb.InfoResponse], error) {
	return connect.NewResponse(&pb.InfoResponse{Name: "edge1"}), nil
}

func (r *resetNode) Reset(context.Context, *connect.Request[pb.ResetRequest]) (*connect.Response[pb.ResetResponse], error) {
	r.resets++
	return connect.NewResponse(&pb.ResetResponse{}), r.fails
}

func TestReset(t *testing.T) {
	r := &resetNode{}
	n := &fakeNode{whole: r}
	n.serve(t)
	if status, out, errOut := n.command(t, "reset"); status != exitUsage || r.resets != 0 || !strings.Contains(errOut, "give --yes") {
		t.Errorf("nobody was asked: status %d: %s%s", status, out, errOut)
	}
	status, out, errOut := n.command(t, "reset", "--yes")
	if status != 0 || r.resets != 1 || !strings.Contains(out, "edge1 restarts and erases its data") || !strings.Contains(errOut, "All that edge1 stores will be erased") {
		t.Errorf("status %d: %s%s", status, out, errOut)
	}
	r.fails = connect.NewError(connect.CodeFailedPrecondition, context.DeadlineExceeded)
	if status, out, _ := n.command(t, "reset", "--yes"); status == 0 || out != "" {
		t.Errorf("refused: status %d: %s", status, out)
	}
}
