package api

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/node/access"
	"oscine.dev/oscine/internal/pki"
)

// accessControl says whose certificates are refused.
type accessControl interface {
	Access() *access.List
}

// accessService implements oscine.v1.Access.
type accessService struct {
	list *access.List
	gate *entrance
}

func (s *accessService) Revoke(ctx context.Context, req *connect.Request[pb.RevokeRequest]) (*connect.Response[pb.RevokeResponse], error) {
	who, _ := ctx.Value(callerKey{}).(caller)
	var revoked []access.Revocation
	for _, c := range req.Msg.Certificates {
		serial, err := parseSerial(c.Serial)
		if err != nil {
			return nil, err
		}
		if serial == who.serial && !req.Msg.Own {
			return nil, fmt.Errorf("%w: %s is the certificate of this very call: revoking it locks you out; do it with --yes-revoke-my-own", errdefs.ErrFailedPrecondition, serial)
		}
		revoked = append(revoked, access.Revocation{Serial: serial, Name: c.Name, By: who.name, At: time.Now()})
	}
	if err := s.list.Revoke(revoked); err != nil {
		return nil, err
	}
	for _, r := range revoked {
		s.gate.cutOff(r.Serial)
	}
	return connect.NewResponse(&pb.RevokeResponse{}), nil
}

func (s *accessService) ListRevoked(context.Context, *connect.Request[pb.ListRevokedRequest]) (*connect.Response[pb.ListRevokedResponse], error) {
	resp := &pb.ListRevokedResponse{}
	for _, r := range s.list.All() {
		resp.Certificates = append(resp.Certificates, &pb.Revocation{Serial: r.Serial, Name: r.Name, By: r.By, Revoked: timestamppb.New(r.At)})
	}
	return connect.NewResponse(resp), nil
}

func (s *accessService) Restore(ctx context.Context, req *connect.Request[pb.RestoreRequest]) (*connect.Response[pb.RestoreResponse], error) {
	who, _ := ctx.Value(callerKey{}).(caller)
	var serials []string
	for _, text := range req.Msg.Serials {
		serial, err := parseSerial(text)
		if err != nil {
			return nil, err
		}
		serials = append(serials, serial)
	}
	if err := s.list.Restore(serials, who.name); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RestoreResponse{}), nil
}

func parseSerial(text string) (string, error) {
	serial, err := pki.ParseSerial(text)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	return serial, nil
}
