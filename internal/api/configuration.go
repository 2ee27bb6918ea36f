package api

import (
	"context"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/configuration"
	"oscine.dev/oscine/internal/object"
)

// configured is a node whose Machine can be changed.
type configured interface {
	Configurations() *configuration.Store
}

// configurationService implements oscine.v1.Configuration.
type configurationService struct{ node configured }

func (s *configurationService) Get(_ context.Context, req *connect.Request[pb.GetConfigurationRequest]) (*connect.Response[pb.GetConfigurationResponse], error) {
	store := s.node.Configurations()
	number, machine, err := store.Revision(int(req.Msg.Revision))
	if err != nil {
		return nil, err
	}
	manifest, err := toStruct(configuration.Redacted(machine))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.GetConfigurationResponse{Manifest: manifest, Revision: int64(number), OnTrial: int64(store.OnTrial())}), nil
}

func (s *configurationService) Apply(ctx context.Context, req *connect.Request[pb.ApplyConfigurationRequest]) (*connect.Response[pb.ApplyConfigurationResponse], error) {
	who, _ := ctx.Value(callerKey{}).(caller)
	if seconds := req.Msg.TrialSeconds; seconds < 0 || seconds > int64(configuration.MaxTrial/time.Second) {
		return nil, fmt.Errorf("%w: a trial takes at most %s", errdefs.ErrInvalidArgument, configuration.MaxTrial)
	}
	o := configuration.Options{By: who.name, DryRun: req.Msg.DryRun, Within: time.Duration(req.Msg.TrialSeconds) * time.Second}
	var result configuration.Result
	var err error
	switch what := req.Msg.What.(type) {
	case *pb.ApplyConfigurationRequest_Revision:
		result, err = s.node.Configurations().Return(int(what.Revision), o)
	default:
		var machine *object.Machine
		if machine, err = object.ParseMachine(strings.NewReader(req.Msg.GetManifest())); err != nil {
			return nil, fmt.Errorf("%w: the manifest %w", errdefs.ErrInvalidArgument, err)
		}
		result, err = s.node.Configurations().Apply(machine, o)
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.ApplyConfigurationResponse{
		Revision: int64(result.Revision), Changes: changeMessages(result.Changes), TrialSeconds: int64(result.Within / time.Second),
	}), nil
}

func (s *configurationService) Confirm(_ context.Context, req *connect.Request[pb.ConfirmConfigurationRequest]) (*connect.Response[pb.ConfirmConfigurationResponse], error) {
	if err := s.node.Configurations().Confirm(int(req.Msg.Revision)); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.ConfirmConfigurationResponse{}), nil
}

func (s *configurationService) History(context.Context, *connect.Request[pb.ConfigurationHistoryRequest]) (*connect.Response[pb.ConfigurationHistoryResponse], error) {
	store := s.node.Configurations()
	resp := &pb.ConfigurationHistoryResponse{OnTrial: int64(store.OnTrial())}
	for _, r := range store.History() {
		resp.Revisions = append(resp.Revisions, &pb.ConfigurationRevision{
			Number: int64(r.Number), At: timestamppb.New(r.At), By: r.By, Note: r.Note, Changes: changeMessages(r.Changes),
		})
	}
	return connect.NewResponse(resp), nil
}

func changeMessages(changes []configuration.Change) []*pb.ConfigurationChange {
	var list []*pb.ConfigurationChange
	for _, c := range changes {
		list = append(list, &pb.ConfigurationChange{Path: c.Path, From: c.From, To: c.To})
	}
	return list
}
