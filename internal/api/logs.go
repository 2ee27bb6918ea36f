package api

import (
	"context"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/node"
	"oscine.dev/oscine/internal/object"
)

// history tells what happened on the node.
type history interface {
	Logs(ctx context.Context, kind object.Kind, name string, q node.LogQuery, each func(node.LogLine) error) error
	Dmesg(ctx context.Context, follow bool, each func(node.LogLine) error) error
	Events(ctx context.Context, query node.EventQuery, each func(node.Event) error) error
}

// logService implements oscine.v1.Logs.
type logService struct{ node history }

func (s *logService) Read(ctx context.Context, req *connect.Request[pb.LogsRequest], stream *connect.ServerStream[pb.LogLine]) error {
	m := req.Msg
	query := node.LogQuery{Follow: m.Follow, Tail: int(m.Tail), Previous: m.Previous, Instance: int(min(max(m.Instance, 0), object.MaxInstances+1))}
	if m.Since != nil {
		query.Since = m.Since.AsTime()
	}
	return s.node.Logs(ctx, object.Kind(m.Kind), m.Name, query, sendLines(stream))
}

func (s *logService) Dmesg(ctx context.Context, req *connect.Request[pb.DmesgRequest], stream *connect.ServerStream[pb.LogLine]) error {
	return s.node.Dmesg(ctx, req.Msg.Follow, sendLines(stream))
}

func sendLines(stream *connect.ServerStream[pb.LogLine]) func(node.LogLine) error {
	return func(line node.LogLine) error {
		return stream.Send(&pb.LogLine{Time: timestamppb.New(line.Time), Stream: line.Stream, Text: strings.ToValidUTF8(line.Text, "\uFFFD")})
	}
}

func (s *logService) Events(ctx context.Context, req *connect.Request[pb.EventsRequest], stream *connect.ServerStream[pb.Event]) error {
	m := req.Msg
	query := node.EventQuery{Kind: object.Kind(m.Kind), Name: m.Name, Device: m.Device, Warnings: m.Warnings, Follow: m.Follow, Tail: int(m.Tail)}
	return coded(s.node.Events(ctx, query, func(e node.Event) error {
		return stream.Send(&pb.Event{
			First: timestamppb.New(e.First), Last: timestamppb.New(e.Last), Count: int64(e.Count),
			Kind: string(e.Kind), Name: e.Name, Device: e.Device, Warning: e.Warning,
			Reason: e.Reason, Message: strings.ToValidUTF8(e.Message, "\uFFFD"),
		})
	}))
}
