package serving

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "oscine.dev/oscine/internal/serve/front/oip/inferencepb"
	"oscine.dev/oscine/internal/serve/oip"
	"oscine.dev/oscine/internal/tensor"
)

const (
	service = "/inference.GRPCInferenceService/"
	// A connection carries as many requests at a time; servers allow about 100.
	perConnection  = 64
	maxConnections = 32
	maxAnswer      = 1 << 30
)

// grpcTarget speaks gRPC, over several connections where there are many clients.
type grpcTarget struct {
	url     string
	version string
	token   string
	conns   []*grpc.ClientConn
	next    atomic.Uint64
}

func dialGRPC(e Endpoint) (Target, error) {
	u, err := url.Parse(e.URL)
	if err != nil {
		return nil, err
	}
	secret := insecure.NewCredentials()
	if u.Scheme == "https" {
		secret = credentials.NewTLS(e.TLS)
	}
	host := u.Host
	if u.Port() == "" {
		host += map[string]string{"http": ":80", "https": ":443"}[u.Scheme]
	}
	t := &grpcTarget{url: e.URL, version: e.Version, token: e.Token}
	for range min((e.Clients+perConnection-1)/perConnection, maxConnections) {
		// passthrough: the name is resolved by the dialler, without a proxy.
		conn, err := grpc.NewClient("passthrough:///"+host, grpc.WithTransportCredentials(secret), grpc.WithNoProxy(),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
		if err != nil {
			t.Close()
			return nil, err
		}
		t.conns = append(t.conns, conn)
	}
	return t, nil
}

func (t *grpcTarget) Close() {
	for _, c := range t.conns {
		_ = c.Close() // nothing is at work
	}
}

// call asks one method; the arguments are messages, or bytes for raw.
func (t *grpcTarget) call(ctx context.Context, method string, in, out any, options ...grpc.CallOption) error {
	if t.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+t.token)
	}
	conn := t.conns[t.next.Add(1)%uint64(len(t.conns))]
	return t.refusal(conn.Invoke(ctx, service+method, in, out, options...))
}

// refusal is what a call's error means over HTTP, so that both are told alike.
func (t *grpcTarget) refusal(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	statuses := map[codes.Code]int{
		codes.InvalidArgument: http.StatusBadRequest, codes.Unauthenticated: http.StatusUnauthorized, codes.PermissionDenied: http.StatusForbidden,
		codes.NotFound: http.StatusNotFound, codes.ResourceExhausted: http.StatusTooManyRequests, codes.Unimplemented: http.StatusNotImplemented,
		codes.Unavailable: http.StatusServiceUnavailable, codes.DeadlineExceeded: http.StatusGatewayTimeout, codes.Internal: http.StatusInternalServerError,
	}
	if s.Code() == codes.Unavailable && t.unreachable() {
		return &url.Error{Op: "connect to", URL: t.url, Err: errors.New(s.Message())}
	}
	return &oip.Error{Status: statuses[s.Code()], Code: s.Code().String(), Text: s.Message()}
}

// unreachable reports that no connection stands.
func (t *grpcTarget) unreachable() bool {
	for _, c := range t.conns {
		if s := c.GetState().String(); s == "READY" || s == "IDLE" {
			return false
		}
	}
	return true
}

func (t *grpcTarget) HasBinary(context.Context) (bool, error) { return true, nil }

func (t *grpcTarget) Model(ctx context.Context, name string) (*oip.Model, error) {
	answer := &pb.ModelMetadataResponse{}
	if err := t.call(ctx, "ModelMetadata", &pb.ModelMetadataRequest{Name: name, Version: t.version}, answer); err != nil {
		return nil, err
	}
	m := &oip.Model{Name: answer.Name, Versions: answer.Versions, Platform: answer.Platform}
	for _, list := range []struct {
		from []*pb.ModelMetadataResponse_TensorMetadata
		to   *[]tensor.Spec
	}{{answer.Inputs, &m.Inputs}, {answer.Outputs, &m.Outputs}} {
		for _, one := range list.from {
			kind, err := tensor.ParseDataType(one.Datatype)
			if err != nil {
				return nil, fmt.Errorf("model %s: tensor %q: %w", name, one.Name, err)
			}
			*list.to = append(*list.to, tensor.Spec{Name: one.Name, Type: kind, Shape: one.Shape})
		}
	}
	return m, nil
}

func (t *grpcTarget) Prepare(model string, inputs []oip.Tensor, _ string) (Prepared, error) {
	message := &pb.ModelInferRequest{ModelName: model, ModelVersion: t.version}
	for _, in := range inputs {
		message.Inputs = append(message.Inputs, &pb.ModelInferRequest_InferInputTensor{Name: in.Name, Datatype: in.Type.String(), Shape: in.Shape})
		message.RawInputContents = append(message.RawInputContents, in.Data)
	}
	body, err := proto.Marshal(message)
	return &grpcRequest{t, body}, err
}

type grpcRequest struct {
	target *grpcTarget
	body   []byte
}

func (r *grpcRequest) Size() int { return len(r.body) }

func (r *grpcRequest) Send(ctx context.Context) error {
	var answer []byte
	return r.target.call(ctx, "ModelInfer", r.body, &answer, grpc.ForceCodec(raw{}))
}

func (r *grpcRequest) Answer(ctx context.Context) ([]oip.Tensor, error) {
	var body []byte
	if err := r.target.call(ctx, "ModelInfer", r.body, &body, grpc.ForceCodec(raw{})); err != nil {
		return nil, err
	}
	answer := &pb.ModelInferResponse{}
	if err := proto.Unmarshal(body, answer); err != nil {
		return nil, fmt.Errorf("the server's answer: %w", err)
	}
	if len(answer.RawOutputContents) != len(answer.Outputs) {
		return nil, fmt.Errorf("the server's answer has %d outputs and the bytes of %d", len(answer.Outputs), len(answer.RawOutputContents))
	}
	outputs := make([]oip.Tensor, len(answer.Outputs))
	for i, out := range answer.Outputs {
		kind, err := tensor.ParseDataType(out.Datatype)
		if err != nil {
			return nil, fmt.Errorf("output %q: %w", out.Name, err)
		}
		outputs[i] = oip.Tensor{Spec: tensor.Spec{Name: out.Name, Type: kind, Shape: out.Shape}, Data: answer.RawOutputContents[i]}
	}
	return outputs, nil
}

// raw passes messages on as the bytes that they are.
type raw struct{}

var _ encoding.Codec = raw{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) ([]byte, error) { return v.([]byte), nil }

func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}
