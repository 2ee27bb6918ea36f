package api

import (
	"context"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/node"
)

// volumeStore keeps the folders of workloads that outlive them.
type volumeStore interface {
	Volumes() ([]node.Volume, error)
	RemoveVolume(name string) error
}

// volumeService implements oscine.v1.Volumes.
type volumeService struct{ node volumeStore }

func (s *volumeService) List(context.Context, *connect.Request[pb.ListVolumesRequest]) (*connect.Response[pb.ListVolumesResponse], error) {
	volumes, err := s.node.Volumes()
	if err != nil {
		return nil, err
	}
	resp := &pb.ListVolumesResponse{}
	for _, v := range volumes {
		resp.Volumes = append(resp.Volumes, &pb.Volume{Name: v.Name, UsedBytes: v.Used.Bytes, Files: v.Used.Inodes, Objects: v.Objects})
	}
	return connect.NewResponse(resp), nil
}

func (s *volumeService) Remove(_ context.Context, req *connect.Request[pb.RemoveVolumeRequest]) (*connect.Response[pb.RemoveVolumeResponse], error) {
	if err := s.node.RemoveVolume(req.Msg.Name); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RemoveVolumeResponse{}), nil
}
