package cli

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
)

// Read notes what was asked of the log.
func (n *fakeNode) Read(_ context.Context, req *connect.Request[pb.LogsRequest], stream *connect.ServerStream[pb.LogLine]) error {
	n.asked = req.Msg
	return stream.Send(&pb.LogLine{Text: "hello", Stream: "stdout"})
}

func TestLogsSincePrevious(t *testing.T) {
	n := labelledNode(t)
	for _, c := range []struct {
		args     []string
		status   int
		since    time.Duration // ago; 0 for none
		previous bool
	}{
		{[]string{"web"}, 0, 0, false},
		{[]string{"web", "--since", "10m"}, 0, 10 * time.Minute, false},
		{[]string{"workload", "web", "--previous"}, 0, 0, true},
		{[]string{"web", "--since", time.Now().Add(-time.Hour).Format(time.RFC3339)}, 0, time.Hour, false},
		{[]string{"web", "--since", time.Now().Add(-time.Hour).Format(time.DateTime)}, 0, time.Hour, false},
		{[]string{"web", "--since", "yesterday"}, exitUsage, 0, false},
		{[]string{"web", "--since", "-1m"}, exitUsage, 0, false},
		{[]string{"web", "--previous", "--follow"}, exitUsage, 0, false},
		{[]string{"system", "oscined", "--previous"}, exitUsage, 0, false},
	} {
		n.asked = nil
		status, out, errOut := n.command(t, append([]string{"logs"}, c.args...)...)
		if status != c.status || (n.asked != nil) != (c.status == 0) {
			t.Errorf("%q: exit status %d, %s%s, asked %v", c.args, status, out, errOut, n.asked)
			continue
		}
		if c.status != 0 {
			continue
		}
		if (n.asked.Since != nil) != (c.since != 0) || n.asked.Previous != c.previous || out != "hello\n" {
			t.Errorf("%q asked for %v, got %q", c.args, n.asked, out)
		}
		if off := time.Since(n.asked.Since.AsTime()) - c.since; c.since != 0 && (off < 0 || off > time.Minute) {
			t.Errorf("%q: lines since %v", c.args, n.asked.Since.AsTime())
		}
	}
}
