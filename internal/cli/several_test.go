package cli

import (
	"slices"
	"strings"
	"testing"

	pb "oscine.dev/oscine/internal/api/oscinepb"
)

// labelledNode has three objects, two of them of one application.
func labelledNode(t *testing.T) *fakeNode {
	t.Helper()
	n := &fakeNode{}
	for _, o := range []struct{ kind, name, labels string }{
		{"Model", "digits", `{"app":"shop"}`}, {"Workload", "batch", `{}`}, {"Workload", "web", `{"app":"shop","tier":"front"}`},
	} {
		n.objects = append(n.objects, &pb.Object{Kind: o.kind, Name: o.name, Manifest: structOf(t,
			`{"apiVersion":"oscine.dev/v1","kind":"`+o.kind+`","metadata":{"name":"`+o.name+`","labels":`+o.labels+`},"spec":{}}`)})
	}
	n.serve(t)
	return n
}

func TestLabelsChoose(t *testing.T) {
	n := labelledNode(t)
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"get", "-o", "name"}, 0, "model/digits\nworkload/batch\nworkload/web\n"},
		{[]string{"get", "-o", "name", "-l", "app=shop"}, 0, "model/digits\nworkload/web\n"},
		{[]string{"get", "workloads", "-o", "name", "-l", "app==shop, tier"}, 0, "workload/web\n"},
		{[]string{"get", "-o", "name", "-l", "app!=shop"}, 0, "workload/batch\n"},
		{[]string{"get", "-o", "name", "-l", "=shop"}, exitUsage, ""},
		{[]string{"get", "-o", "name", "-l", "app!"}, exitUsage, ""},
	} {
		if status, out, errOut := n.command(t, c.args...); status != c.status || out != c.want {
			t.Errorf("%q: exit status %d, %q, %s; want %d, %q", c.args, status, out, errOut, c.status, c.want)
		}
	}
	n.changes = []*pb.WatchResponse{
		{Event: "set", Object: n.objects[0]}, {Event: "set", Object: n.objects[1]},
		{Event: "deleted", Object: &pb.Object{Kind: "Workload", Name: "batch"}}, {Event: "deleted", Object: &pb.Object{Kind: "Model", Name: "digits"}},
	}
	if _, out, errOut := n.command(t, "get", "--watch", "-o", "name", "-l", "app=shop"); out != "model/digits\nmodel/digits\n" {
		t.Errorf("watched %q, %s", out, errOut)
	}
}

func TestDeleteSeveral(t *testing.T) {
	n := labelledNode(t)
	for _, c := range []struct {
		args   []string
		status int
		want   []string
	}{
		{[]string{"workload", "web", "batch"}, 0, []string{"Workload/web", "Workload/batch"}},
		{[]string{"workload/web", "model/digits"}, 0, []string{"Workload/web", "Model/digits"}},
		{[]string{"-l", "app=shop"}, 0, []string{"Model/digits", "Workload/web"}},
		{[]string{"models", "-l", "app=shop"}, 0, []string{"Model/digits"}},
		{[]string{"-l", "app=none"}, 0, nil},
		{[]string{"workload/web", "batch"}, exitUsage, nil},
		{[]string{"workload", "web", "-l", "app=shop"}, exitUsage, nil},
		{[]string{"all", "web"}, exitUsage, nil},
		{[]string{"workload"}, exitUsage, nil},
	} {
		n.deleted = nil
		status, out, errOut := n.command(t, append([]string{"delete"}, c.args...)...)
		if status != c.status || !slices.Equal(n.deleted, c.want) {
			t.Errorf("%q: exit status %d, %s%s; deleted %q, want %q", c.args, status, out, errOut, n.deleted, c.want)
		}
	}
}

// The shell is offered what the node has.
func TestNamesAreCompleted(t *testing.T) {
	n := labelledNode(t)
	for want, args := range map[string][]string{
		"batch\nweb\n:4\n":                   {"exec", ""},
		"web\n:4\n":                          {"exec", "w"},
		"batch:/\nweb:/\n:2\n":               {"cp", ""},
		"digits\n:4\n":                       {"infer", ""},
		"test\n:4\n":                         {"config", "use", ""},
		"test\n:0\n":                         {"place", "--machine", ""},
		"realtime\ninteractive\nbatch\n:4\n": {"run", "--class", ""},
	} {
		if status, out, errOut := n.command(t, append([]string{"__complete"}, args...)...); status != 0 || out != want {
			t.Errorf("%q: exit status %d, %q, %s; want %q", args, status, out, errOut, want)
		}
	}
}

func TestWait(t *testing.T) {
	n := labelledNode(t)
	seen := func(phase string) *pb.WatchResponse {
		return &pb.WatchResponse{Event: "set", Object: &pb.Object{Kind: "Workload", Name: "web", Manifest: n.objects[2].Manifest, Status: structOf(t, `{"phase":"`+phase+`"}`)}}
	}
	n.changes = []*pb.WatchResponse{seen("Pending"), seen("Running")}
	for _, c := range []struct {
		args   []string
		status int
		out    string
		errOut string
	}{
		{[]string{"workload", "web", "--for", "phase=running"}, 0, "workload/web is Running\n", ""},
		{[]string{"workload/gone", "--for", "deleted"}, 0, "workload/gone deleted\n", ""},
		{[]string{"workload/web", "--for", "deleted", "--timeout", "50ms"}, exitUnavailable, "", "oscine: workload/web: "},
		{[]string{"workload/gone", "--for", "phase=Running"}, exitNotFound, "", "not found"},
		{[]string{"workload/gone", "--for", "phase=Ready"}, exitNotFound, "", "not found"},
		{[]string{"workload/web", "--for", "phase=Happy"}, exitUsage, "", "with one of Pending,"},
		{[]string{"workload/web"}, exitUsage, "", "needs --for"},
	} {
		status, out, errOut := n.command(t, append([]string{"wait"}, c.args...)...)
		if status != c.status || out != c.out || !strings.Contains(errOut, c.errOut) {
			t.Errorf("%q: exit status %d, %q, %q; want %d, %q, %q", c.args, status, out, errOut, c.status, c.out, c.errOut)
		}
	}
}
