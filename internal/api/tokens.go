package api

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/node/access"
)

// tokenStore keeps the tokens of inference's clients.
type tokenStore interface {
	Tokens() *access.Tokens
}

// tokenService implements oscine.v1.Tokens.
type tokenService struct{ node tokenStore }

func (s *tokenService) Create(ctx context.Context, req *connect.Request[pb.CreateTokenRequest]) (*connect.Response[pb.CreateTokenResponse], error) {
	who, _ := ctx.Value(callerKey{}).(caller)
	q := req.Msg.GetToken()
	token := access.Token{Name: q.GetName(), Models: q.GetModels(), Rate: q.GetRate(), Burst: int(q.GetBurst()), Concurrent: int(q.GetConcurrent()), By: who.name}
	if q.GetExpires() != nil {
		token.Expires = q.Expires.AsTime()
	}
	if req.Msg.Lifetime != nil {
		token.Expires = time.Now().UTC().Add(req.Msg.Lifetime.AsDuration()).Truncate(time.Second)
	}
	secret, made, err := s.node.Tokens().Create(token)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.CreateTokenResponse{Secret: secret, Token: tokenMessage(&made, access.Usage{})}), nil
}

func (s *tokenService) List(context.Context, *connect.Request[pb.ListTokensRequest]) (*connect.Response[pb.ListTokensResponse], error) {
	resp := &pb.ListTokensResponse{}
	tokens, used := s.node.Tokens().All()
	for i := range tokens {
		resp.Tokens = append(resp.Tokens, tokenMessage(&tokens[i], used[i]))
	}
	return connect.NewResponse(resp), nil
}

func (s *tokenService) Remove(_ context.Context, req *connect.Request[pb.RemoveTokensRequest]) (*connect.Response[pb.RemoveTokensResponse], error) {
	if err := s.node.Tokens().Remove(req.Msg.Names); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RemoveTokensResponse{}), nil
}

// tokenMessage is a token without what its secret could be guessed from.
func tokenMessage(t *access.Token, used access.Usage) *pb.Token {
	m := &pb.Token{Name: t.Name, Models: t.Models, Rate: t.Rate, Burst: uint32(t.Burst), Concurrent: uint32(t.Concurrent),
		Created: timestamppb.New(t.Created), By: t.By, Requests: uint64(used.Requests), Refused: uint64(used.Refused)}
	if !t.Expires.IsZero() {
		m.Expires = timestamppb.New(t.Expires)
	}
	if !used.Last.IsZero() {
		m.LastUsed = timestamppb.New(used.Last)
	}
	return m
}
