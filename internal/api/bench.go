package api

import (
	"context"
	"encoding/json"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/bench/classes"
)

// latencyBench measures the node.
type latencyBench interface {
	BenchLatency(context.Context, classes.Options) (*classes.Report, error)
}

// benchService implements oscine.v1.Bench.
type benchService struct{ node latencyBench }

func (s *benchService) Latency(ctx context.Context, req *connect.Request[pb.BenchLatencyRequest], stream *connect.ServerStream[pb.BenchLatencyResponse]) error {
	m := req.Msg
	report, err := s.node.BenchLatency(ctx, classes.Options{
		Classes: m.Classes, Schedulers: m.Schedulers, Loads: m.Loads, Threads: int(m.LoadThreads),
		Duration: m.Duration.AsDuration(), Period: m.Period.AsDuration(),
		Progress: func(line string) {
			// A client that is gone cancels ctx; nobody needs its progress.
			_ = stream.Send(&pb.BenchLatencyResponse{Progress: line})
		},
	})
	if report == nil || ctx.Err() != nil {
		return err
	}
	raw, encodeErr := json.Marshal(report)
	if encodeErr != nil {
		return encodeErr
	}
	if err := stream.Send(&pb.BenchLatencyResponse{Json: raw}); err != nil {
		return err
	}
	return err
}
