package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/structpb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/node"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/place"
)

// objectStore holds what the node is meant to run.
type objectStore interface {
	Get(kind object.Kind, name string) ([]object.State, error)
	Watch(ctx context.Context, kind object.Kind, name string, each func(event string, state object.State) error) error
	Apply(ctx context.Context, objects []object.Object, o node.ApplyOptions) ([]node.Result, error)
	Delete(ctx context.Context, key object.Key) error
	Stop(ctx context.Context, key object.Key) error
	Start(ctx context.Context, key object.Key) error
	Restart(ctx context.Context, key object.Key) error
	// Kinds returns the kinds that the node knows.
	Kinds() object.Table
}

// objectService implements oscine.v1.Objects.
type objectService struct{ node objectStore }

func (s *objectService) Get(_ context.Context, req *connect.Request[pb.GetRequest]) (*connect.Response[pb.GetResponse], error) {
	objects, err := s.node.Get(object.Kind(req.Msg.Kind), req.Msg.Name)
	if err != nil {
		return nil, err
	}
	resp := &pb.GetResponse{}
	for _, obj := range objects {
		message, err := objectMessage(obj)
		if err != nil {
			return nil, err
		}
		resp.Objects = append(resp.Objects, message)
	}
	return connect.NewResponse(resp), nil
}

func (s *objectService) Watch(ctx context.Context, req *connect.Request[pb.GetRequest], stream *connect.ServerStream[pb.WatchResponse]) error {
	return s.node.Watch(ctx, object.Kind(req.Msg.Kind), req.Msg.Name, func(event string, state object.State) error {
		message, err := objectMessage(state)
		if err != nil {
			return err
		}
		return stream.Send(&pb.WatchResponse{Event: event, Object: message})
	})
}

func (s *objectService) Apply(ctx context.Context, req *connect.Request[pb.ApplyRequest]) (*connect.Response[pb.ApplyResponse], error) {
	objects, err := s.node.Kinds().Parse(strings.NewReader(req.Msg.Manifest))
	if err != nil {
		return nil, err
	}
	results, err := s.node.Apply(ctx, objects, node.ApplyOptions{DryRun: req.Msg.DryRun, Displace: req.Msg.Displace})
	if err != nil {
		return nil, err
	}
	resp := &pb.ApplyResponse{}
	for _, r := range results {
		message, err := resultMessage(&r)
		if err != nil {
			return nil, err
		}
		resp.Results = append(resp.Results, message)
	}
	return connect.NewResponse(resp), nil
}

func resultMessage(r *node.Result) (*pb.ApplyResult, error) {
	m := &pb.ApplyResult{Kind: string(r.Kind), Name: r.Name, Action: string(r.Action)}
	for _, d := range r.Displaced {
		m.Displaces = append(m.Displaces, &pb.Displaced{Kind: string(d.Kind), Name: d.Name, Why: d.Why})
	}
	var err error
	if r.Placement != nil {
		if m.Placement, err = toStruct(r.Placement); err != nil {
			return nil, fmt.Errorf("encode the placement of %s: %w", r.Key, err)
		}
	}
	if r.Unplaced == nil {
		return m, nil
	}
	m.Unplaced = r.Unplaced.Error()
	var refusal *place.Unsatisfied
	if errors.As(r.Unplaced, &refusal) {
		if m.Refusal, err = toStruct(refusal); err != nil {
			return nil, fmt.Errorf("encode the refusal of %s: %w", r.Key, err)
		}
	}
	return m, nil
}

func (s *objectService) Delete(ctx context.Context, req *connect.Request[pb.DeleteRequest]) (*connect.Response[pb.DeleteResponse], error) {
	if err := s.node.Delete(ctx, object.Key{Kind: object.Kind(req.Msg.Kind), Name: req.Msg.Name}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.DeleteResponse{}), nil
}

func (s *objectService) Stop(ctx context.Context, req *connect.Request[pb.StopRequest]) (*connect.Response[pb.StopResponse], error) {
	if err := s.node.Stop(ctx, object.Key{Kind: object.Kind(req.Msg.Kind), Name: req.Msg.Name}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.StopResponse{}), nil
}

func (s *objectService) Start(ctx context.Context, req *connect.Request[pb.StartRequest]) (*connect.Response[pb.StartResponse], error) {
	if err := s.node.Start(ctx, object.Key{Kind: object.Kind(req.Msg.Kind), Name: req.Msg.Name}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.StartResponse{}), nil
}

func (s *objectService) Restart(ctx context.Context, req *connect.Request[pb.RestartRequest]) (*connect.Response[pb.RestartResponse], error) {
	if err := s.node.Restart(ctx, object.Key{Kind: object.Kind(req.Msg.Kind), Name: req.Msg.Name}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RestartResponse{}), nil
}

func objectMessage(state object.State) (*pb.Object, error) {
	m := &pb.Object{Kind: string(state.Kind), Name: state.Name}
	var err error
	if state.Object != nil { // else it was deleted, or cannot be read
		if m.Manifest, err = toStruct(state.Object); err != nil {
			return nil, fmt.Errorf("encode %s: %w", state.Key, err)
		}
	}
	if state.Status != nil {
		if m.Status, err = toStruct(state.Status); err != nil {
			return nil, fmt.Errorf("encode the status of %s: %w", state.Key, err)
		}
	}
	return m, nil
}

func toStruct(value any) (*structpb.Struct, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	out := &structpb.Struct{}
	return out, out.UnmarshalJSON(raw)
}
