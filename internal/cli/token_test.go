package cli

import (
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	pbconnect "oscine.dev/oscine/internal/api/oscinepb/oscinepbconnect"
)

// fakeTokens notes what was asked.
type fakeTokens struct {
	pbconnect.UnimplementedTokensHandler
	made    *pb.CreateTokenRequest
	removed []string
}

func (f *fakeTokens) Create(_ context.Context, req *connect.Request[pb.CreateTokenRequest]) (*connect.Response[pb.CreateTokenResponse], error) {
	f.made = req.Msg
	return connect.NewResponse(&pb.CreateTokenResponse{Secret: "oscine_secret", Token: req.Msg.Token}), nil
}

func (f *fakeTokens) List(context.Context, *connect.Request[pb.ListTokensRequest]) (*connect.Response[pb.ListTokensResponse], error) {
	return connect.NewResponse(&pb.ListTokensResponse{Tokens: []*pb.Token{f.made.GetToken(), {Name: "other"}}}), nil
}

func (f *fakeTokens) Remove(_ context.Context, req *connect.Request[pb.RemoveTokensRequest]) (*connect.Response[pb.RemoveTokensResponse], error) {
	f.removed = req.Msg.Names
	return connect.NewResponse(&pb.RemoveTokensResponse{}), nil
}

func TestTokenCommands(t *testing.T) {
	tokens := &fakeTokens{}
	n := &fakeNode{tokens: tokens}
	n.serve(t)
	status, out, errOut := n.command(t, "token", "create", "web", "--model", "digits*", "--rate", "30/m", "--burst", "4", "--max-concurrent", "2", "--expires", "90d")
	if status != 0 || out != "oscine_secret\n" {
		t.Fatalf("%d %s%s", status, out, errOut)
	}
	if q := tokens.made; q.Token.Rate != 0.5 || q.Token.Burst != 4 || q.Token.Concurrent != 2 || q.Token.Models[0] != "digits*" || q.Lifetime.AsDuration() != 90*24*time.Hour {
		t.Errorf("asked for %v", q)
	}
	status, out, _ = n.command(t, "token", "list")
	for _, want := range []string{"web    digits*  30/m  2", "other  -"} {
		if status != 0 || !strings.Contains(out, want) {
			t.Errorf("%d, want %q in\n%s", status, want, out)
		}
	}
	if status, out, _ = n.command(t, "token", "ls", "-o", "name"); status != 0 || out != "web\nother\n" {
		t.Errorf("%d %s", status, out)
	}
	if status, out, _ = n.command(t, "token", "rm", "web", "other"); status != 0 || out != "token/web removed\ntoken/other removed\n" || len(tokens.removed) != 2 {
		t.Errorf("%d %s", status, out)
	}
	for _, wrong := range [][]string{{"--rate", "fast"}, {"--rate", "0"}, {"--rate", "5/d"}, {"--expires", "soon"}, {"--expires", "-1h"}, {"--expires", "0d"}, {"--max-concurrent", "0"}, {"--max-concurrent", "-1"}, {"--burst", "x"}} {
		if status, _, errOut := n.command(t, append([]string{"token", "create", "web"}, wrong...)...); status != 2 || !strings.Contains(errOut, wrong[0]) || strings.Contains(errOut, "strconv") {
			t.Errorf("%v: %d %s", wrong, status, errOut)
		}
	}
}
