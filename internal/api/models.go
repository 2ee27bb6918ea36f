package api

import (
	"context"
	"io"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
)

// modelStore keeps the files of models.
type modelStore interface {
	UploadModel(context.Context, io.Reader) (digest string, size int64, err error)
}

// modelService implements oscine.v1.Models.
type modelService struct{ node modelStore }

func (s *modelService) Upload(ctx context.Context, stream *connect.ClientStream[pb.Chunk]) (*connect.Response[pb.UploadModelResponse], error) {
	digest, size, err := s.node.UploadModel(ctx, uploadReader(stream))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.UploadModelResponse{Digest: digest, SizeBytes: size}), nil
}
