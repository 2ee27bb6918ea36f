package api

import (
	"context"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/containerd/errdefs"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/install"
	"oscine.dev/oscine/internal/object"
)

// installer puts what the node runs on other disks.
type installer interface {
	Disks() ([]install.Disk, error)
	// Install returns the version.
	Install(ctx context.Context, disk string, machine *object.Machine, unconfigured bool, o install.Options) (string, error)
}

// installationService implements oscine.v1.Installation.
type installationService struct{ node installer }

func (s *installationService) ListDisks(context.Context, *connect.Request[pb.ListDisksRequest]) (*connect.Response[pb.ListDisksResponse], error) {
	disks, err := s.node.Disks()
	if err != nil {
		return nil, err
	}
	resp := &pb.ListDisksResponse{}
	for _, d := range disks {
		resp.Disks = append(resp.Disks, d.Message())
	}
	return connect.NewResponse(resp), nil
}

// installInterval is how often the progress of an installation is told.
const installInterval = 200 * time.Millisecond

func (s *installationService) Install(ctx context.Context, req *connect.Request[pb.InstallRequest], stream *connect.ServerStream[pb.InstallResponse]) error {
	m := req.Msg
	var machine *object.Machine
	if m.Machine != "" {
		if m.Unconfigured || m.KeepData {
			return fmt.Errorf("%w: with a Machine of its own the new system is configured, and keeps no data partition with another", errdefs.ErrInvalidArgument)
		}
		var err error
		if machine, err = object.ParseMachine(strings.NewReader(m.Machine)); err != nil {
			return fmt.Errorf("%w: the Machine of the new system: %w", errdefs.ErrInvalidArgument, err)
		}
	}
	last, step := time.Time{}, ""
	report := func(p install.Progress) {
		if p.Step == step && time.Since(last) < installInterval {
			return
		}
		last, step = time.Now(), p.Step
		_ = stream.Send(&pb.InstallResponse{Step: p.Step, DoneBytes: p.Done, TotalBytes: p.Total}) // a caller that left ends ctx
	}
	version, err := s.node.Install(ctx, m.Disk, machine, m.Unconfigured, install.Options{KeepData: m.KeepData, Force: m.Force, Path: m.Path, Size: m.SizeBytes, Report: report})
	if err != nil {
		return err
	}
	return stream.Send(&pb.InstallResponse{Version: version})
}
