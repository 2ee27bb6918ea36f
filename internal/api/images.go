package api

import (
	"context"
	"io"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/node"
)

// imageStore keeps OCI images.
type imageStore interface {
	Images(context.Context) ([]node.Image, error)
	ImportImage(context.Context, io.Reader) ([]node.Image, error)
	PullImage(ctx context.Context, name string, progress func(string)) (node.Image, error)
	RemoveImage(ctx context.Context, name string) error
}

// imageService implements oscine.v1.Images.
type imageService struct{ node imageStore }

func (s *imageService) List(ctx context.Context, _ *connect.Request[pb.ListImagesRequest]) (*connect.Response[pb.ListImagesResponse], error) {
	images, err := s.node.Images(ctx)
	if err != nil {
		return nil, err
	}
	resp := &pb.ListImagesResponse{}
	for _, im := range images {
		resp.Images = append(resp.Images, imageMessage(im))
	}
	return connect.NewResponse(resp), nil
}

func (s *imageService) Import(ctx context.Context, stream *connect.ClientStream[pb.Chunk]) (*connect.Response[pb.ImportImageResponse], error) {
	images, err := s.node.ImportImage(ctx, uploadReader(stream))
	if err != nil {
		return nil, err
	}
	resp := &pb.ImportImageResponse{}
	for _, im := range images {
		resp.Images = append(resp.Images, imageMessage(im))
	}
	return connect.NewResponse(resp), nil
}

func (s *imageService) Pull(ctx context.Context, req *connect.Request[pb.PullImageRequest], stream *connect.ServerStream[pb.PullImageResponse]) error {
	im, err := s.node.PullImage(ctx, req.Msg.Name, func(status string) {
		// A client that is gone cancels ctx; nobody needs its progress.
		_ = stream.Send(&pb.PullImageResponse{Status: status})
	})
	if err != nil {
		return err
	}
	return stream.Send(&pb.PullImageResponse{Image: imageMessage(im)})
}

func (s *imageService) Remove(ctx context.Context, req *connect.Request[pb.RemoveImageRequest]) (*connect.Response[pb.RemoveImageResponse], error) {
	if err := s.node.RemoveImage(ctx, req.Msg.Name); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RemoveImageResponse{}), nil
}

func imageMessage(im node.Image) *pb.Image {
	return &pb.Image{Name: im.Name, Digest: im.Digest, SizeBytes: im.Size, Created: timestamppb.New(im.Created)}
}
