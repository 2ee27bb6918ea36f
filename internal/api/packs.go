package api

import (
	"bytes"
	"context"
	"io"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/pki"
)

// packStore keeps the packs of engines and drivers.
type packStore interface {
	Packs() ([]pack.Info, error)
	InstallPack(context.Context, io.Reader, pki.Signature) (*pack.Info, error)
	RemovePack(ctx context.Context, name string) error
}

// packService implements oscine.v1.Packs.
type packService struct{ node packStore }

func (s *packService) List(context.Context, *connect.Request[pb.ListPacksRequest]) (*connect.Response[pb.ListPacksResponse], error) {
	packs, err := s.node.Packs()
	if err != nil {
		return nil, err
	}
	resp := &pb.ListPacksResponse{}
	for i := range packs {
		resp.Packs = append(resp.Packs, packMessage(&packs[i]))
	}
	return connect.NewResponse(resp), nil
}

func (s *packService) Install(ctx context.Context, stream *connect.ClientStream[pb.Chunk]) (*connect.Response[pb.InstallPackResponse], error) {
	if !stream.Receive() {
		return nil, stream.Err()
	}
	first := stream.Msg()
	signature := pki.Signature{Certificate: first.GetSignature().GetCertificate(), Value: first.GetSignature().GetValue()}
	p, err := s.node.InstallPack(ctx, io.MultiReader(bytes.NewReader(first.Data), uploadReader(stream)), signature)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.InstallPackResponse{Pack: packMessage(p)}), nil
}

func (s *packService) Remove(ctx context.Context, req *connect.Request[pb.RemovePackRequest]) (*connect.Response[pb.RemovePackResponse], error) {
	if err := s.node.RemovePack(ctx, req.Msg.Name); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RemovePackResponse{}), nil
}

func packMessage(p *pack.Info) *pb.Pack {
	return &pb.Pack{Name: p.Name, Version: p.Version, Architecture: p.Arch, Digest: p.Digest, SizeBytes: p.SizeBytes, Engines: p.Engines, Drivers: p.Drivers}
}
