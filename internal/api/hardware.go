package api

import (
	"context"
	"fmt"
	"io"
	"math"
	"time"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/hardware"
)

// machineMap knows the machine below the node.
type machineMap interface {
	Hardware(context.Context) ([]byte, error)
	WatchHardware(ctx context.Context, load time.Duration, each func(hardware.News) error) error
	RecordHardware(io.Writer) (hardware.Recorded, error)
}

// hardwareService implements oscine.v1.Hardware.
type hardwareService struct{ node machineMap }

func (s *hardwareService) Describe(ctx context.Context, _ *connect.Request[pb.HardwareRequest]) (*connect.Response[pb.HardwareResponse], error) {
	raw, err := s.node.Hardware(ctx)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.HardwareResponse{Json: raw}), nil
}

func (s *hardwareService) Watch(ctx context.Context, req *connect.Request[pb.WatchHardwareRequest], stream *connect.ServerStream[pb.WatchHardwareResponse]) error {
	const day = 24 * 60 * 60
	seconds := req.Msg.LoadSeconds
	if math.IsNaN(seconds) || seconds < 0 || seconds > day {
		return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("load_seconds %v: give 0.1 to %d, or 0 for no load", seconds, day))
	}
	return coded(s.node.WatchHardware(ctx, time.Duration(seconds*float64(time.Second)), func(news hardware.News) error {
		message := &pb.WatchHardwareResponse{Load: loadMessage(news.Load)}
		if news.Machine != nil {
			var err error
			if message.Json, err = hardware.Encode(news.Machine); err != nil {
				return err
			}
		}
		for _, c := range news.Changes {
			message.Changes = append(message.Changes, &pb.HardwareChange{Device: c.Device, What: c.What, Reason: string(c.Reason), Warning: c.Warning})
		}
		return stream.Send(message)
	}))
}

func (s *hardwareService) Record(_ context.Context, _ *connect.Request[pb.RecordHardwareRequest], stream *connect.ServerStream[pb.RecordHardwareResponse]) error {
	recorded, err := s.node.RecordHardware(writerFunc(func(p []byte) (int, error) {
		return len(p), stream.Send(&pb.RecordHardwareResponse{Data: p})
	}))
	if err != nil {
		return err
	}
	last := &pb.RecordHardwareResponse{Files: int64(recorded.Files)}
	for _, g := range recorded.LeftOut {
		last.LeftOut = append(last.LeftOut, &pb.HardwareGap{Path: g.Path, Reason: g.Reason})
	}
	return stream.Send(last)
}

func loadMessage(l *hardware.Load) *pb.HardwareLoad {
	if l == nil {
		return nil
	}
	m := &pb.HardwareLoad{Cpus: map[int32]float32{}, UsedBytes: map[int32]uint64{}, Devices: map[string]*pb.DeviceLoad{}}
	for id, share := range l.CPUs {
		m.Cpus[int32(id)] = float32(share)
	}
	for id, used := range l.Used {
		m.UsedBytes[int32(id)] = uint64(used)
	}
	for id, d := range l.Devices {
		m.Devices[id] = &pb.DeviceLoad{Busy: d.Busy, UsedBytes: uint64(d.Used), Celsius: d.Celsius, Watts: d.Watts}
	}
	for _, z := range l.Thermal {
		m.Thermal = append(m.Thermal, &pb.Temperature{Name: z.Name, Celsius: z.Celsius})
	}
	return m
}
