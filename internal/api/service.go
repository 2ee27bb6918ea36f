package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/node"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
)

// service implements the Node service on internal/node.
type service struct {
	node *node.Node
	log  *slog.Logger
}

// coded gives an error of the node its gRPC code.
func coded(err error) error {
	var mistakes object.Errors
	switch {
	case err == nil:
		return nil
	case errors.As(err, &mistakes), errors.Is(err, node.ErrInvalid):
		return connect.NewError(connect.CodeInvalidArgument, err)
	case errors.Is(err, node.ErrNotFound):
		return connect.NewError(connect.CodeNotFound, err)
	case errors.Is(err, node.ErrConflict):
		return connect.NewError(connect.CodeFailedPrecondition, err)
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, err)
	}
	var already *connect.Error
	if errors.As(err, &already) {
		return err
	}
	return connect.NewError(connect.CodeUnknown, err)
}

func (s *service) Info(ctx context.Context, _ *connect.Request[pb.InfoRequest]) (*connect.Response[pb.InfoResponse], error) {
	info := s.node.Info()
	resp := &pb.InfoResponse{
		Name: info.Name, Version: info.Version, Kernel: info.Kernel, Architecture: info.Architecture,
		Mode: string(info.Mode), Slot: info.Slot, Booted: timestamppb.New(info.Booted),
		UptimeSeconds: info.Uptime.Seconds(), ReadySeconds: info.Ready.Seconds(),
		MissingGuarantees: info.Missing,
	}
	for _, p := range info.Processes {
		resp.SystemMemoryBytes += p.Bytes
		resp.Processes = append(resp.Processes, &pb.ProcessMemory{Name: p.Name, Bytes: p.Bytes})
	}
	return connect.NewResponse(resp), nil
}

func (s *service) Doctor(ctx context.Context, _ *connect.Request[pb.DoctorRequest]) (*connect.Response[pb.DoctorResponse], error) {
	resp := &pb.DoctorResponse{}
	for _, c := range s.node.Doctor(ctx) {
		resp.Capabilities = append(resp.Capabilities, &pb.Capability{
			Name: c.Name, Available: c.Available, Detail: c.Detail, NeededFor: c.NeededFor, Remedy: c.Remedy,
		})
	}
	return connect.NewResponse(resp), nil
}

func (s *service) Get(_ context.Context, req *connect.Request[pb.GetRequest]) (*connect.Response[pb.GetResponse], error) {
	objects, err := s.node.Get(object.Kind(req.Msg.Kind), req.Msg.Name)
	if err != nil {
		return nil, coded(err)
	}
	resp := &pb.GetResponse{}
	for _, obj := range objects {
		message, err := objectMessage(obj)
		if err != nil {
			return nil, coded(err)
		}
		resp.Objects = append(resp.Objects, message)
	}
	return connect.NewResponse(resp), nil
}

func (s *service) Watch(ctx context.Context, req *connect.Request[pb.GetRequest], stream *connect.ServerStream[pb.WatchResponse]) error {
	return coded(s.node.Watch(ctx, object.Kind(req.Msg.Kind), req.Msg.Name, func(event string, state node.ObjectState) error {
		message, err := objectMessage(state)
		if err != nil {
			return err
		}
		return stream.Send(&pb.WatchResponse{Event: event, Object: message})
	}))
}

func objectMessage(state node.ObjectState) (*pb.Object, error) {
	m, err := toStruct(state.Manifest)
	if err != nil {
		return nil, err
	}
	status, err := toStruct(state.Status)
	if err != nil {
		return nil, err
	}
	return &pb.Object{Kind: string(state.Kind), Name: state.Name, Manifest: m, Status: status}, nil
}

func toStruct(value any) (*structpb.Struct, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encode an object: %w", err)
	}
	out := &structpb.Struct{}
	return out, out.UnmarshalJSON(raw)
}

func (s *service) Apply(ctx context.Context, req *connect.Request[pb.ApplyRequest]) (*connect.Response[pb.ApplyResponse], error) {
	objects, err := object.Parse(strings.NewReader(req.Msg.Manifest))
	if err != nil {
		return nil, coded(err)
	}
	results, err := s.node.Apply(ctx, objects, req.Msg.DryRun)
	if err != nil {
		return nil, coded(err)
	}
	resp := &pb.ApplyResponse{}
	for _, r := range results {
		resp.Results = append(resp.Results, &pb.ApplyResult{Kind: string(r.Kind), Name: r.Name, Action: string(r.Action)})
	}
	return connect.NewResponse(resp), nil
}

func (s *service) Delete(ctx context.Context, req *connect.Request[pb.DeleteRequest]) (*connect.Response[pb.DeleteResponse], error) {
	if err := s.node.Delete(ctx, object.Kind(req.Msg.Kind), req.Msg.Name); err != nil {
		return nil, coded(err)
	}
	return connect.NewResponse(&pb.DeleteResponse{}), nil
}

func (s *service) Logs(ctx context.Context, req *connect.Request[pb.LogsRequest], stream *connect.ServerStream[pb.LogLine]) error {
	return coded(s.node.Logs(ctx, object.Kind(req.Msg.Kind), req.Msg.Name, req.Msg.Follow, int(req.Msg.Tail), sendLines(stream)))
}

func (s *service) Dmesg(ctx context.Context, req *connect.Request[pb.DmesgRequest], stream *connect.ServerStream[pb.LogLine]) error {
	return coded(s.node.Dmesg(ctx, req.Msg.Follow, sendLines(stream)))
}

func sendLines(stream *connect.ServerStream[pb.LogLine]) func(node.LogLine) error {
	return func(line node.LogLine) error {
		return stream.Send(&pb.LogLine{Time: timestamppb.New(line.Time), Stream: line.Stream, Text: strings.ToValidUTF8(line.Text, "\uFFFD")})
	}
}

func (s *service) ListImages(ctx context.Context, _ *connect.Request[pb.ListImagesRequest]) (*connect.Response[pb.ListImagesResponse], error) {
	images, err := s.node.Images(ctx)
	if err != nil {
		return nil, coded(err)
	}
	resp := &pb.ListImagesResponse{}
	for _, im := range images {
		resp.Images = append(resp.Images, imageMessage(im))
	}
	return connect.NewResponse(resp), nil
}

func imageMessage(im node.Image) *pb.Image {
	return &pb.Image{Name: im.Name, Digest: im.Digest, SizeBytes: im.Size, Created: timestamppb.New(im.Created)}
}

func (s *service) ImportImage(ctx context.Context, stream *connect.ClientStream[pb.Chunk]) (*connect.Response[pb.ImportImageResponse], error) {
	images, err := s.node.ImportImage(ctx, uploadReader(stream))
	if err != nil {
		return nil, coded(err)
	}
	resp := &pb.ImportImageResponse{}
	for _, im := range images {
		resp.Images = append(resp.Images, imageMessage(im))
	}
	return connect.NewResponse(resp), nil
}

func (s *service) PullImage(ctx context.Context, req *connect.Request[pb.PullImageRequest], stream *connect.ServerStream[pb.PullImageResponse]) error {
	im, err := s.node.PullImage(ctx, req.Msg.Name, func(status string) {
		// A client that is gone cancels ctx; its progress is of no more use.
		_ = stream.Send(&pb.PullImageResponse{Status: status})
	})
	if err != nil {
		return coded(err)
	}
	return stream.Send(&pb.PullImageResponse{Image: imageMessage(im)})
}

func (s *service) RemoveImage(ctx context.Context, req *connect.Request[pb.RemoveImageRequest]) (*connect.Response[pb.RemoveImageResponse], error) {
	if err := s.node.RemoveImage(ctx, req.Msg.Name); err != nil {
		return nil, coded(err)
	}
	return connect.NewResponse(&pb.RemoveImageResponse{}), nil
}

func (s *service) UploadModel(ctx context.Context, stream *connect.ClientStream[pb.Chunk]) (*connect.Response[pb.UploadModelResponse], error) {
	digest, size, err := s.node.UploadModel(ctx, uploadReader(stream))
	if err != nil {
		return nil, coded(err)
	}
	return connect.NewResponse(&pb.UploadModelResponse{Digest: digest, SizeBytes: size}), nil
}

func (s *service) InstallPack(ctx context.Context, stream *connect.ClientStream[pb.Chunk]) (*connect.Response[pb.InstallPackResponse], error) {
	p, err := s.node.InstallPack(ctx, uploadReader(stream))
	if err != nil {
		return nil, coded(err)
	}
	return connect.NewResponse(&pb.InstallPackResponse{Pack: packMessage(p)}), nil
}

func (s *service) ListPacks(context.Context, *connect.Request[pb.ListPacksRequest]) (*connect.Response[pb.ListPacksResponse], error) {
	packs, err := s.node.Packs()
	if err != nil {
		return nil, coded(err)
	}
	resp := &pb.ListPacksResponse{}
	for i := range packs {
		resp.Packs = append(resp.Packs, packMessage(&packs[i]))
	}
	return connect.NewResponse(resp), nil
}

func (s *service) RemovePack(ctx context.Context, req *connect.Request[pb.RemovePackRequest]) (*connect.Response[pb.RemovePackResponse], error) {
	if err := s.node.RemovePack(ctx, req.Msg.Name); err != nil {
		return nil, coded(err)
	}
	return connect.NewResponse(&pb.RemovePackResponse{}), nil
}

func packMessage(p *pack.Info) *pb.Pack {
	return &pb.Pack{Name: p.Name, Version: p.Version, Architecture: p.Arch, Digest: p.Digest, SizeBytes: p.SizeBytes, Engines: p.Engines, Drivers: p.Drivers}
}

func (s *service) Reboot(ctx context.Context, req *connect.Request[pb.RebootRequest]) (*connect.Response[pb.RebootResponse], error) {
	if err := s.node.Reboot(req.Msg.PowerOff); err != nil {
		return nil, coded(err)
	}
	return connect.NewResponse(&pb.RebootResponse{}), nil
}

func uploadReader(stream *connect.ClientStream[pb.Chunk]) io.Reader {
	return &chunks[pb.Chunk]{stream: stream, data: func(c *pb.Chunk) []byte { return c.Data }}
}
