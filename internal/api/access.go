package api

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/node/access"
	"oscine.dev/oscine/internal/pki"
)

// accessControl says whose certificates are refused, and who asks for another.
type accessControl interface {
	Access() *access.List
	Renewals() *access.Renewals
}

// accessService implements oscine.v1.Access.
type accessService struct {
	node      accessControl
	gate      *entrance
	authority *x509.CertPool
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
	if err := s.node.Access().Revoke(revoked); err != nil {
		return nil, err
	}
	var serials []string
	for _, r := range revoked {
		s.gate.cutOff(r.Serial)
		serials = append(serials, r.Serial)
	}
	if err := s.node.Renewals().Drop(serials, time.Now()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RevokeResponse{}), nil
}

func (s *accessService) ListRevoked(context.Context, *connect.Request[pb.ListRevokedRequest]) (*connect.Response[pb.ListRevokedResponse], error) {
	resp := &pb.ListRevokedResponse{}
	for _, r := range s.node.Access().All() {
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
	if err := s.node.Access().Restore(serials, who.name); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RestoreResponse{}), nil
}

func (s *accessService) Renew(ctx context.Context, req *connect.Request[pb.RenewRequest]) (*connect.Response[pb.RenewResponse], error) {
	who, _ := ctx.Value(callerKey{}).(caller)
	if who.leaf == nil {
		return nil, fmt.Errorf("%w: only a certificate can be renewed", errdefs.ErrFailedPrecondition)
	}
	// The certificate is the caller's: nobody renews another's.
	renewal := pki.Renewal{
		Request:   []byte(req.Msg.CertificateRequest),
		Signature: pki.Signature{Certificate: who.leaf.Raw, Value: req.Msg.Signature},
	}
	before, err := renewal.Check(s.authority, time.Now())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	certificate, err := s.node.Renewals().Ask(before, renewal, time.Now())
	if err != nil {
		return nil, err
	}
	// Revoked while this call was under way, it may have asked after Revoke forgot
	// what it had asked for.
	if s.node.Access().Revoked(who.serial) {
		return nil, errors.Join(connect.NewError(connect.CodeUnauthenticated, errRevoked), s.node.Renewals().Drop([]string{who.serial}, time.Now()))
	}
	return connect.NewResponse(&pb.RenewResponse{Certificate: certificate}), nil
}

func (s *accessService) ListRenewals(context.Context, *connect.Request[pb.ListRenewalsRequest]) (*connect.Response[pb.ListRenewalsResponse], error) {
	resp := &pb.ListRenewalsResponse{}
	for _, a := range s.node.Renewals().Pending(time.Now()) {
		resp.Renewals = append(resp.Renewals, &pb.Renewal{
			CertificateRequest: string(a.Request), Certificate: a.Signature.Certificate, Signature: a.Signature.Value, Asked: timestamppb.New(a.At),
		})
	}
	return connect.NewResponse(resp), nil
}

func (s *accessService) Approve(ctx context.Context, req *connect.Request[pb.ApproveRequest]) (*connect.Response[pb.ApproveResponse], error) {
	who, _ := ctx.Value(callerKey{}).(caller)
	serial, err := parseSerial(req.Msg.Serial)
	if err != nil {
		return nil, err
	}
	if err := s.node.Renewals().Answer(s.authority, serial, req.Msg.Certificate, who.name, time.Now()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.ApproveResponse{}), nil
}

func parseSerial(text string) (string, error) {
	serial, err := pki.ParseSerial(text)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	return serial, nil
}
