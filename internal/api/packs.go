package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/pki"
)

// packStore keeps the packs of engines and drivers.
type packStore interface {
	Packs() ([]pack.Info, error)
	InstallPack(context.Context, io.Reader, pki.Signature) (*pack.Info, error)
	PullPack(ctx context.Context, reference string, plainHTTP bool, progress func(received, size int64)) (p *pack.Info, pinned string, err error)
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

func (s *packService) Pull(ctx context.Context, req *connect.Request[pb.PullPackRequest], stream *connect.ServerStream[pb.PullPackResponse]) error {
	p, pinned, err := s.node.PullPack(ctx, req.Msg.Reference, req.Msg.PlainHttp, func(received, size int64) {
		// A client that is gone cancels ctx; nobody needs its progress.
		_ = stream.Send(&pb.PullPackResponse{ReceivedBytes: received, SizeBytes: size})
	})
	if err != nil {
		return err
	}
	return stream.Send(&pb.PullPackResponse{Pack: packMessage(p), Reference: pinned})
}

func (s *packService) Remove(ctx context.Context, req *connect.Request[pb.RemovePackRequest]) (*connect.Response[pb.RemovePackResponse], error) {
	if err := s.node.RemovePack(ctx, req.Msg.Name); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RemovePackResponse{}), nil
}

func packMessage(p *pack.Info) *pb.Pack {
	manifest, err := json.Marshal(p.Manifest)
	if err != nil {
		manifest = nil // it was read from JSON
	}
	var damaged *timestamppb.Timestamp
	if !p.Damaged.IsZero() {
		damaged = timestamppb.New(p.Damaged)
	}
	return &pb.Pack{
		Name: p.Name, Version: p.Version, Architecture: p.Arch, Digest: p.Digest, SizeBytes: p.SizeBytes, Engines: p.Engines, Drivers: p.Drivers, Tools: p.Tools,
		Manifest: string(manifest), Signer: p.Signature.Signer(), Release: p.Release,
		Verity: p.Verity, Unverified: p.Unverified, Damaged: damaged, Source: p.Source, Next: p.Next, Stays: p.Stays, KernelState: p.KernelState,
	}
}
