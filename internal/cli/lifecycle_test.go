package cli

import (
	"slices"
	"strings"
	"testing"

	pb "oscine.dev/oscine/internal/api/oscinepb"
)

func TestStopStartRestart(t *testing.T) {
	n := labelledNode(t)
	n.objects = append(n.objects,
		&pb.Object{Kind: "Secret", Name: "web", Manifest: structOf(t, `{"apiVersion":"oscine.dev/v1","kind":"Secret","metadata":{"name":"web"},"spec":{}}`)},
		&pb.Object{Kind: "Secret", Name: "db", Manifest: structOf(t, `{"apiVersion":"oscine.dev/v1","kind":"Secret","metadata":{"name":"db"},"spec":{}}`)},
		&pb.Object{Kind: "Workload", Name: "digits", Manifest: structOf(t, `{"apiVersion":"oscine.dev/v1","kind":"Workload","metadata":{"name":"digits"},"spec":{}}`)})
	n.changes = []*pb.WatchResponse{
		{Event: "set", Object: &pb.Object{Kind: "Workload", Name: "web", Manifest: n.objects[2].Manifest, Status: structOf(t, `{"phase":"Pending"}`)}},
		{Event: "set", Object: &pb.Object{Kind: "Workload", Name: "web", Manifest: n.objects[2].Manifest, Status: structOf(t, `{"phase":"Stopped"}`)}},
	}
	for _, c := range []struct {
		args        []string
		status      int
		told        []string
		out, errOut string
	}{
		{[]string{"stop", "web"}, 0, []string{"stop Workload/web"}, "workload/web stopped\n", ""},
		{[]string{"start", "workload", "web", "batch"}, 0, []string{"start Workload/web", "start Workload/batch"}, "workload/web starts\nworkload/batch starts\n", ""},
		{[]string{"restart", "model/digits", "batch"}, 0, []string{"restart Model/digits", "restart Workload/batch"}, "model/digits restarts\nworkload/batch restarts\n", ""},
		{[]string{"restart", "workload/gone", "workload/web"}, exitNotFound, []string{"restart Workload/web"}, "workload/web restarts\n", "oscine: Workload gone: not found\n"},
		{[]string{"stop", "digits"}, exitUsage, nil, "", "write model/digits or workload/digits"},
		{[]string{"stop", "db"}, exitNotFound, nil, "", `no workload or model is named "db"`},
		{[]string{"stop", "workload"}, exitUsage, nil, "", "needs KIND and NAME"},
		{[]string{"stop"}, exitUsage, nil, "", "takes NAME..."},
	} {
		n.told = nil
		status, out, errOut := n.command(t, c.args...)
		if status != c.status || out != c.out || !strings.Contains(errOut, c.errOut) || !slices.Equal(n.told, c.told) {
			t.Errorf("%q: exit status %d, %q, %q, told %q; want %+v", c.args, status, out, errOut, n.told, c)
		}
	}
	if _, out, _ := n.command(t, "__complete", "stop", "web", ""); out != "batch\ndigits\n:4\n" {
		t.Errorf("completion offers %q", out)
	}
}
