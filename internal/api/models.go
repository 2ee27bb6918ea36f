package api

import (
	"context"
	"io"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/node"
	"oscine.dev/oscine/internal/node/kind/model"
	"oscine.dev/oscine/internal/object"
)

// modelStore keeps the files of models.
type modelStore interface {
	UploadModel(context.Context, io.Reader, model.Upload) (digest string, size int64, err error)
	ReceivedModel(digest string, folder bool) (stored bool, bytes int64)
	PullModel(ctx context.Context, reference string, plainHTTP bool, s3 *object.S3, progress func(received, size int64)) (*model.Pulled, error)
	SignModel(digest string, signature []byte) error
	ModelHeader(digest string) []byte
	ModelFiles() ([]node.ModelFile, error)
	RemoveModelFile(digest string) (full string, err error)
}

// modelService implements oscine.v1.Models.
type modelService struct{ node modelStore }

func (s *modelService) Upload(ctx context.Context, stream *connect.ClientStream[pb.Chunk]) (*connect.Response[pb.UploadModelResponse], error) {
	var u model.Upload
	r := uploadReader(stream)
	if stream.Receive() { // the first message says what comes
		first := stream.Msg()
		u, r.rest = model.Upload{Digest: first.Digest, Offset: first.Offset, Folder: first.Folder}, first.Data
	}
	digest, size, err := s.node.UploadModel(ctx, r, u)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.UploadModelResponse{Digest: digest, SizeBytes: size}), nil
}

func (s *modelService) Received(_ context.Context, req *connect.Request[pb.ReceivedModelRequest]) (*connect.Response[pb.ReceivedModelResponse], error) {
	stored, bytes := s.node.ReceivedModel(req.Msg.Digest, req.Msg.Folder)
	return connect.NewResponse(&pb.ReceivedModelResponse{Stored: stored, ReceivedBytes: bytes}), nil
}

func (s *modelService) Sign(_ context.Context, req *connect.Request[pb.SignModelRequest]) (*connect.Response[pb.SignModelResponse], error) {
	return connect.NewResponse(&pb.SignModelResponse{}), s.node.SignModel(req.Msg.Digest, req.Msg.Signature)
}

func (s *modelService) Pull(ctx context.Context, req *connect.Request[pb.PullModelRequest], stream *connect.ServerStream[pb.PullModelResponse]) error {
	var s3 *object.S3
	if at := req.Msg.S3; at != nil {
		s3 = &object.S3{Endpoint: at.Endpoint, Region: at.Region, PathStyle: at.PathStyle, Secret: at.Secret}
	}
	p, err := s.node.PullModel(ctx, req.Msg.Reference, req.Msg.PlainHttp, s3, func(received, size int64) {
		// A client that is gone cancels ctx; nobody needs its progress.
		_ = stream.Send(&pb.PullModelResponse{ReceivedBytes: received, SizeBytes: size})
	})
	if err != nil {
		return err
	}
	return stream.Send(&pb.PullModelResponse{
		Digest: p.Digest, Reference: p.Reference, Format: p.Format, SizeBytes: p.SizeBytes, LanguageModel: s.node.ModelHeader(p.Digest),
	})
}

func (s *modelService) List(context.Context, *connect.Request[pb.ListModelFilesRequest]) (*connect.Response[pb.ListModelFilesResponse], error) {
	files, err := s.node.ModelFiles()
	if err != nil {
		return nil, err
	}
	resp := &pb.ListModelFilesResponse{}
	for _, f := range files {
		resp.Files = append(resp.Files, &pb.ModelFile{Digest: f.Digest, SizeBytes: f.Size, Used: timestamppb.New(f.Used), Objects: f.Objects, Release: f.Release})
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
