package api

import (
	"context"
	"io"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/node"
)

// modelStore keeps the files of models.
type modelStore interface {
	UploadModel(context.Context, io.Reader) (digest string, size int64, err error)
	ModelFiles() ([]node.ModelFile, error)
	RemoveModelFile(digest string) (full string, err error)
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

func (s *modelService) List(context.Context, *connect.Request[pb.ListModelFilesRequest]) (*connect.Response[pb.ListModelFilesResponse], error) {
	files, err := s.node.ModelFiles()
	if err != nil {
		return nil, err
	}
	resp := &pb.ListModelFilesResponse{}
	for _, f := range files {
		resp.Files = append(resp.Files, &pb.ModelFile{Digest: f.Digest, SizeBytes: f.Size, Used: timestamppb.New(f.Used), Objects: f.Objects})
	}
	return connect.NewResponse(resp), nil
}

func (s *modelService) Remove(_ context.Context, req *connect.Request[pb.RemoveModelFileRequest]) (*connect.Response[pb.RemoveModelFileResponse], error) {
	full, err := s.node.RemoveModelFile(req.Msg.Digest)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RemoveModelFileResponse{Digest: full}), nil
}
