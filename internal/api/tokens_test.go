package api

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	pbconnect "oscine.dev/oscine/internal/api/oscinepb/oscinepbconnect"
	"oscine.dev/oscine/internal/node/access"
	"oscine.dev/oscine/internal/pki"
)

func (n *quietNode) Tokens() *access.Tokens { return n.tokens }

// Only an admin makes tokens; the secret is in one answer and no other.
func TestTokensOverTheAPI(t *testing.T) {
	tokens, err := access.OpenTokens(filepath.Join(t.TempDir(), "tokens.json"))
	if err != nil {
		t.Fatal(err)
	}
	g := newGatedNode(t, &quietNode{list: &access.List{}, tokens: tokens})
	_, boss := g.client("boss", pki.Admin)
	_, oper := g.client("oper", pki.Operator)
	q := &pb.CreateTokenRequest{Token: &pb.Token{Name: "web", Models: []string{"digits"}, Rate: 5, Burst: 10, Concurrent: 2}, Lifetime: durationpb.New(time.Hour)}
	if _, err := pbconnect.NewTokensClient(oper, g.url()).Create(t.Context(), connect.NewRequest(q)); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("an operator: got %v", err)
	}
	client := pbconnect.NewTokensClient(boss, g.url())
	made, err := client.Create(t.Context(), connect.NewRequest(q))
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(made.Msg.Token.Expires.AsTime()); left < 59*time.Minute || left > time.Hour || made.Msg.Token.By != "boss" {
		t.Errorf("made %v", made.Msg.Token)
	}
	r := httptest.NewRequest("GET", "/v2", nil)
	r.Header.Set("Authorization", "Bearer "+made.Msg.Secret)
	w := httptest.NewRecorder()
	tokens.Guard(true, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
	if w.Code != 200 {
		t.Errorf("the new token: got %d %s", w.Code, w.Body)
	}
	listed, err := client.List(t.Context(), connect.NewRequest(&pb.ListTokensRequest{}))
	if err != nil || len(listed.Msg.Tokens) != 1 || listed.Msg.Tokens[0].Burst != 10 || strings.Contains(listed.Msg.String(), made.Msg.Secret) {
		t.Errorf("listed %v, %v", listed, err)
	}
	if _, err := client.Create(t.Context(), connect.NewRequest(q)); connect.CodeOf(err) != connect.CodeAlreadyExists {
		t.Errorf("the same name: got %v", err)
	}
	if _, err := client.Remove(t.Context(), connect.NewRequest(&pb.RemoveTokensRequest{Names: []string{"web"}})); err != nil {
		t.Error(err)
	}
	if _, err := client.Remove(t.Context(), connect.NewRequest(&pb.RemoveTokensRequest{Names: []string{"web"}})); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("once more: got %v", err)
	}
}
