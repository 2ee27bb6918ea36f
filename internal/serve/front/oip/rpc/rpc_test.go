package rpc

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcgzip "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
	pb "oscine.dev/oscine/internal/serve/front/oip/inferencepb"
	"oscine.dev/oscine/internal/serve/servetest"
	"oscine.dev/oscine/internal/tensor"
)

func TestMain(m *testing.M) { servetest.Main(m) }

// rig is a registry behind a server, and a client of grpc-go.
type rig struct {
	*servetest.Rig
	server *httptest.Server
	client *grpc.ClientConn
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{Rig: servetest.New(t)}
	r.server = httptest.NewUnstartedServer(front.Handler(r.Registry, front.Options{MaxBodyBytes: 1 << 20}, []front.Front{Front()}))
	r.server.Config.Protocols = new(http.Protocols)
	r.server.Config.Protocols.SetHTTP1(true)
	r.server.Config.Protocols.SetUnencryptedHTTP2(true)
	r.server.Start()
	t.Cleanup(r.server.Close)
	var err error
	if r.client, err = grpc.NewClient(r.server.Listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.client.Close() })
	return r
}

// ask calls a unary method.
func ask[A any, AP message[A]](ctx context.Context, r *rig, method string, q proto.Message, options ...grpc.CallOption) (AP, error) {
	a := AP(new(A))
	err := r.client.Invoke(ctx, service+method, q, a, options...)
	return a, err
}

func raw(values ...float32) []byte {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

// rows is a request of rows of four.
func rows(values ...float32) *pb.ModelInferRequest {
	return &pb.ModelInferRequest{ModelName: "m", Id: "7",
		Inputs:           []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{int64(len(values) / 4), 4}}},
		RawInputContents: [][]byte{raw(values...)}}
}

func TestMethods(t *testing.T) {
	r := newRig(t)
	r.Ready("m")
	check := func(method string, got proto.Message, err error, want proto.Message) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", method, err)
		} else if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", method, diff)
		}
	}
	live, err := ask[pb.ServerLiveResponse](t.Context(), r, "ServerLive", &pb.ServerLiveRequest{})
	check("ServerLive", live, err, &pb.ServerLiveResponse{Live: true})
	ready, err := ask[pb.ServerReadyResponse](t.Context(), r, "ServerReady", &pb.ServerReadyRequest{})
	check("ServerReady", ready, err, &pb.ServerReadyResponse{Ready: true})
	for name, want := range map[string]bool{"m": true, "none": false} {
		ready, err := ask[pb.ModelReadyResponse](t.Context(), r, "ModelReady", &pb.ModelReadyRequest{Name: name})
		check("ModelReady "+name, ready, err, &pb.ModelReadyResponse{Ready: want})
	}
	meta, err := ask[pb.ModelMetadataResponse](t.Context(), r, "ModelMetadata", &pb.ModelMetadataRequest{Name: "m", Version: "1"})
	check("ModelMetadata", meta, err, &pb.ModelMetadataResponse{Name: "m", Versions: []string{"1"}, Platform: "doubler_test",
		Inputs:  []*pb.ModelMetadataResponse_TensorMetadata{{Name: "x", Datatype: "FP32", Shape: []int64{-1, 4}}},
		Outputs: []*pb.ModelMetadataResponse_TensorMetadata{{Name: "y", Datatype: "FP32", Shape: []int64{-1, 4}}, {Name: "batch", Datatype: "INT32", Shape: []int64{-1}}}})
	config, err := ask[pb.ModelConfigResponse](t.Context(), r, "ModelConfig", &pb.ModelConfigRequest{Name: "m"})
	check("ModelConfig", config, err, &pb.ModelConfigResponse{Config: &pb.ModelConfig{Name: "m", Platform: "doubler_test", Backend: "doubler", ModelTransactionPolicy: &pb.ModelTransactionPolicy{},
		Input:  []*pb.ModelInput{{Name: "x", DataType: pb.DataType_TYPE_FP32, Dims: []int64{-1, 4}}},
		Output: []*pb.ModelOutput{{Name: "y", DataType: pb.DataType_TYPE_FP32, Dims: []int64{-1, 4}}, {Name: "batch", DataType: pb.DataType_TYPE_INT32, Dims: []int64{-1}}}}})
	index, err := ask[pb.RepositoryIndexResponse](t.Context(), r, "RepositoryIndex", &pb.RepositoryIndexRequest{})
	check("RepositoryIndex", index, err, &pb.RepositoryIndexResponse{Models: []*pb.RepositoryIndexResponse_ModelIndex{{Name: "m", Version: "1", State: "READY"}}})
	if _, err := ask[pb.ModelInferResponse](t.Context(), r, "ModelInfer", rows(1, 2, 3, 4)); err != nil {
		t.Error(err)
	}
	stats, err := ask[pb.ModelStatisticsResponse](t.Context(), r, "ModelStatistics", &pb.ModelStatisticsRequest{Name: "m"})
	if err != nil || len(stats.ModelStats) != 1 || stats.ModelStats[0].InferenceCount != 1 || stats.ModelStats[0].InferenceStats.Success.Ns == 0 || stats.ModelStats[0].LastInference == 0 {
		t.Errorf("ModelStatistics: %v, %v", stats, err)
	}
	logs, err := ask[pb.LogSettingsResponse](t.Context(), r, "LogSettings", &pb.LogSettingsRequest{})
	if err != nil || !logs.Settings["log_info"].GetBoolParam() {
		t.Errorf("LogSettings: %v, %v", logs, err)
	}
	trace, err := ask[pb.TraceSettingResponse](t.Context(), r, "TraceSetting", &pb.TraceSettingRequest{})
	if err != nil || trace.Settings["trace_level"].Value[0] != "OFF" {
		t.Errorf("TraceSetting: %v, %v", trace, err)
	}
}

func TestInfer(t *testing.T) {
	r := newRig(t)
	r.Ready("m")
	got, err := ask[pb.ModelInferResponse](t.Context(), r, "ModelInfer", rows(1, 2, 3, 4.5))
	if err != nil {
		t.Fatal(err)
	}
	want := &pb.ModelInferResponse{ModelName: "m", ModelVersion: "1", Id: "7",
		Outputs:           []*pb.ModelInferResponse_InferOutputTensor{{Name: "y", Datatype: "FP32", Shape: []int64{1, 4}}, {Name: "batch", Datatype: "INT32", Shape: []int64{1}}},
		RawOutputContents: [][]byte{raw(2, 4, 6, 9), {1, 0, 0, 0}}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}

	typed := rows()
	typed.RawInputContents, typed.Inputs[0].Shape = nil, []int64{1, 4}
	typed.Inputs[0].Contents = &pb.InferTensorContents{Fp32Contents: []float32{1, 2, 3, 4.5}}
	typed.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "y"}}
	got, err = ask[pb.ModelInferResponse](t.Context(), r, "ModelInfer", typed, grpc.UseCompressor(grpcgzip.Name))
	if err != nil || len(got.RawOutputContents) != 1 || !bytes.Equal(got.RawOutputContents[0], raw(2, 4, 6, 9)) {
		t.Errorf("typed contents, compressed: %v, %v", got, err)
	}

	typed.Outputs[0].Parameters = map[string]*pb.InferParameter{"classification": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 2}}}
	got, err = ask[pb.ModelInferResponse](t.Context(), r, "ModelInfer", typed)
	if want := "\x0a\x00\x00\x009.000000:3\x0a\x00\x00\x006.000000:2"; err != nil || got.Outputs[0].Datatype != "BYTES" || string(got.RawOutputContents[0]) != want {
		t.Errorf("classes: %v, %v", got, err)
	}

	// Beyond what is joined into one write.
	large := make([]float32, 4*2000)
	for i := range large {
		large[i] = float32(i)
	}
	wide := rows(large...)
	wide.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "y"}}
	got, err = ask[pb.ModelInferResponse](t.Context(), r, "ModelInfer", wide)
	for i := range large {
		large[i] *= 2
	}
	if err != nil || len(got.RawOutputContents) != 1 || !bytes.Equal(got.RawOutputContents[0], raw(large...)) {
		t.Errorf("2000 rows: %v", err)
	}
}

func TestErrors(t *testing.T) {
	r := newRig(t)
	r.Ready("m")
	change := func(f func(*pb.ModelInferRequest)) *pb.ModelInferRequest {
		q := rows(1, 2, 3, 4)
		f(q)
		return q
	}
	param := func(v int64) *pb.InferParameter {
		return &pb.InferParameter{ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: v}}
	}
	for _, test := range []struct {
		q    *pb.ModelInferRequest
		code codes.Code
		text string
	}{
		{change(func(q *pb.ModelInferRequest) { q.ModelName = "none" }), codes.NotFound, `no model "none"`},
		{change(func(q *pb.ModelInferRequest) { q.ModelVersion = "2" }), codes.NotFound, `served in version "1"`},
		{change(func(q *pb.ModelInferRequest) { q.Inputs[0].Name = "grüße" }), codes.InvalidArgument, `input "x" is missing`},
		{change(func(q *pb.ModelInferRequest) { q.Inputs[0].Datatype = "FP8" }), codes.InvalidArgument, `datatype "FP8" is not supported`},
		{change(func(q *pb.ModelInferRequest) { q.Inputs[0].Datatype = "FP64" }), codes.InvalidArgument, `the model wants FP32`},
		{change(func(q *pb.ModelInferRequest) { q.Inputs[0].Shape = []int64{1, 3} }), codes.InvalidArgument, "wrong shape"},
		{change(func(q *pb.ModelInferRequest) { q.Inputs[0].Shape = []int64{-1, 4} }), codes.InvalidArgument, "shape needs"},
		{change(func(q *pb.ModelInferRequest) { q.RawInputContents[0] = raw(1) }), codes.InvalidArgument, "got 4 bytes, the shape needs 16"},
		{change(func(q *pb.ModelInferRequest) { q.RawInputContents = append(q.RawInputContents, raw(1)) }), codes.InvalidArgument, "more entries than there are inputs"},
		{change(func(q *pb.ModelInferRequest) { q.RawInputContents = nil }), codes.InvalidArgument, "4 elements too few"},
		{change(func(q *pb.ModelInferRequest) {
			q.Inputs[0].Contents = &pb.InferTensorContents{Fp32Contents: []float32{1}}
		}), codes.InvalidArgument, "has both contents"},
		{change(func(q *pb.ModelInferRequest) {
			q.RawInputContents, q.Inputs[0].Contents = nil, &pb.InferTensorContents{IntContents: []int32{1, 2, 3, 4}}
		}), codes.InvalidArgument, "not the one for FP32"},
		{change(func(q *pb.ModelInferRequest) {
			q.RawInputContents, q.Inputs[0].Contents = nil, &pb.InferTensorContents{Fp32Contents: make([]float32, 5)}
		}), codes.InvalidArgument, "more elements than the shape needs"},
		{change(func(q *pb.ModelInferRequest) {
			q.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "q"}}
		}), codes.InvalidArgument, `output "q" is not known`},
		{change(func(q *pb.ModelInferRequest) { q.Parameters = map[string]*pb.InferParameter{"priority": param(1001)} }), codes.InvalidArgument, "choose 1, served first"},
		{change(func(q *pb.ModelInferRequest) { q.Parameters = map[string]*pb.InferParameter{"sequence_id": param(3)} }), codes.InvalidArgument, "keeps no state"},
		{change(func(q *pb.ModelInferRequest) {
			q.Inputs[0].Parameters = map[string]*pb.InferParameter{"shared_memory_region": param(3)}
		}), codes.InvalidArgument, "shared memory is not supported"},
		{change(func(q *pb.ModelInferRequest) { q.Id = strings.Repeat("i", 2000) }), codes.InvalidArgument, "id is longer"},
		{rows(make([]float32, 1<<19)...), codes.ResourceExhausted, "at most 1048576 bytes"},
	} {
		_, err := ask[pb.ModelInferResponse](t.Context(), r, "ModelInfer", test.q)
		if status.Code(err) != test.code || !strings.Contains(err.Error(), test.text) {
			t.Errorf("got %v, want %v %q", err, test.code, test.text)
		}
	}
	if _, err := ask[pb.ServerLiveResponse](t.Context(), r, "Dance", &pb.ServerLiveRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("an unknown method: got %v", err)
	}
	if _, err := ask[pb.RepositoryModelLoadResponse](t.Context(), r, "RepositoryModelLoad", &pb.RepositoryModelLoadRequest{ModelName: "m"}); err != nil {
		t.Errorf("load: got %v", err)
	}
	if _, err := ask[pb.RepositoryModelLoadResponse](t.Context(), r, "RepositoryModelLoad", &pb.RepositoryModelLoadRequest{ModelName: "none"}); status.Code(err) != codes.NotFound {
		t.Errorf("load of what is not served: got %v", err)
	}
	if _, err := ask[pb.RepositoryModelUnloadResponse](t.Context(), r, "RepositoryModelUnload", &pb.RepositoryModelUnloadRequest{ModelName: "m"}); status.Code(err) != codes.Unavailable {
		t.Errorf("unload: got %v", err)
	}
	var trailer metadata.MD
	_, err := ask[pb.ModelInferResponse](t.Context(), r, "ModelInfer", rows(servetest.Poison, 0, 0, 0), grpc.Trailer(&trailer))
	if status.Code(err) != codes.Unavailable || len(trailer.Get("grpc-retry-pushback-ms")) != 1 {
		t.Errorf("a worker that dies: got %v, trailer %v", err, trailer)
	}
}

func TestDeadlinesReachTheQueue(t *testing.T) {
	r := newRig(t)
	open := r.Gate("doubler")
	defer open()
	// The node itself gives it up, too, unless the client's cancel comes first.
	for expired, end := false, time.Now().Add(10*time.Second); !expired; {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := ask[pb.ModelInferResponse](ctx, r, "ModelInfer", rows(2, 0, 0, 0)); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		cancel()
		for range 50 {
			s, err := r.Registry.Status("m")
			if err != nil {
				t.Fatal(err)
			}
			if expired = s.Expired > 0; expired {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if time.Now().After(end) {
			t.Fatal("the node counts no expired request")
		}
	}
	// A client that leaves takes its request along.
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	gone := make(chan error)
	go func() {
		_, err := ask[pb.ModelInferResponse](ctx, r, "ModelInfer", rows(2, 0, 0, 0))
		gone <- err
	}()
	leave()
	if err := <-gone; status.Code(err) != codes.Canceled {
		t.Errorf("got %v", err)
	}
}

func TestStream(t *testing.T) {
	r := newRig(t)
	r.Ready("m")
	s, err := r.client.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, service+"ModelStreamInfer")
	if err != nil {
		t.Fatal(err)
	}
	for i, q := range []*pb.ModelInferRequest{rows(1, 2, 3, 4), {ModelName: "none", Id: "8"}, rows(make([]float32, 4*1500)...), rows(5, 6, 7, 8)} {
		if i == 3 {
			q.Parameters = map[string]*pb.InferParameter{"triton_enable_empty_final_response": {ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: true}}}
		}
		if err := s.SendMsg(q); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		var a pb.ModelStreamInferResponse
		if err := s.RecvMsg(&a); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%s %v %q", a.InferResponse.GetId(), a.InferResponse.GetParameters()["triton_final_response"].GetBoolParam(), a.ErrorMessage)
		for _, b := range a.InferResponse.GetRawOutputContents() {
			line += fmt.Sprintf(" %d", len(b))
		}
		got = append(got, line)
	}
	want := []string{`7 false "" 16 4`, `8 false "model not found: no model \"none\" is served here"`, `7 false "" 24000 6000`, `7 true "" 16 4`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// What is not gRPC gets an answer of HTTP.
func TestOtherClientsAreTold(t *testing.T) {
	r := newRig(t)
	for _, test := range []struct {
		proto2 bool
		method string
		kind   string
		status int
	}{
		{false, "POST", contentType, http.StatusHTTPVersionNotSupported},
		{true, "GET", contentType, http.StatusMethodNotAllowed},
		{true, "POST", "application/json", http.StatusUnsupportedMediaType},
	} {
		var p http.Protocols
		p.SetHTTP1(!test.proto2)
		p.SetUnencryptedHTTP2(test.proto2)
		client := &http.Client{Transport: &http.Transport{Protocols: &p}}
		req, err := http.NewRequestWithContext(t.Context(), test.method, r.server.URL+service+"ServerLive", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", test.kind)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		client.CloseIdleConnections()
		if resp.StatusCode != test.status {
			t.Errorf("%+v: got %s", test, resp.Status)
		}
	}
}

func TestParseTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "30S": 30 * time.Second, "500m": 500 * time.Millisecond, "99999999n": 99999999, "7u": 7 * time.Microsecond,
		"0m": 0, "99999999H": 24 * time.Hour,
		"": -1, "5": -1, "m": -1, "-1m": -1, "123456789m": -1, "1x": -1, "1.5S": -1,
	} {
		got, err := parseTimeout(text)
		if want < 0 != (err != nil) || want >= 0 && got != want {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}

// All types of elements go into the slot as raw ones would.
func TestContents(t *testing.T) {
	for kind, test := range map[tensor.DataType]struct {
		contents *pb.InferTensorContents
		want     string
	}{
		tensor.Bool:   {&pb.InferTensorContents{BoolContents: []bool{true, false}}, "\x01\x00"},
		tensor.Int8:   {&pb.InferTensorContents{IntContents: []int32{-1, 127}}, "\xff\x7f"},
		tensor.Int16:  {&pb.InferTensorContents{IntContents: []int32{-2, 258}}, "\xfe\xff\x02\x01"},
		tensor.Int32:  {&pb.InferTensorContents{IntContents: []int32{-2, 258}}, "\xfe\xff\xff\xff\x02\x01\x00\x00"},
		tensor.Int64:  {&pb.InferTensorContents{Int64Contents: []int64{-2, 258}}, "\xfe\xff\xff\xff\xff\xff\xff\xff\x02\x01\x00\x00\x00\x00\x00\x00"},
		tensor.Uint8:  {&pb.InferTensorContents{UintContents: []uint32{255, 1}}, "\xff\x01"},
		tensor.Uint16: {&pb.InferTensorContents{UintContents: []uint32{65535, 1}}, "\xff\xff\x01\x00"},
		tensor.Uint32: {&pb.InferTensorContents{UintContents: []uint32{math.MaxUint32, 1}}, "\xff\xff\xff\xff\x01\x00\x00\x00"},
		tensor.Uint64: {&pb.InferTensorContents{Uint64Contents: []uint64{math.MaxUint64, 1}}, "\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x00\x00\x00\x00\x00\x00"},
		tensor.FP32:   {&pb.InferTensorContents{Fp32Contents: []float32{1, -2}}, string(raw(1, -2))},
		tensor.FP64:   {&pb.InferTensorContents{Fp64Contents: []float64{1, -2}}, "\x00\x00\x00\x00\x00\x00\xf0\x3f\x00\x00\x00\x00\x00\x00\x00\xc0"},
		tensor.Bytes:  {&pb.InferTensorContents{BytesContents: [][]byte{[]byte("ab"), nil}}, "\x02\x00\x00\x00ab\x00\x00\x00\x00"},
	} {
		message, err := proto.Marshal(&pb.ModelInferRequest{Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: kind.String(), Shape: []int64{2}, Contents: test.contents}}})
		if err != nil {
			t.Fatal(err)
		}
		var q request
		if err := q.parse(message); err != nil {
			t.Fatal(kind, err)
		}
		source, err := q.inputs[0].source()
		if err != nil {
			t.Fatal(kind, err)
		}
		got := make([]byte, len(test.want))
		if err := source.Put(got); err != nil || string(got) != test.want {
			t.Errorf("%s: got %q, %v", kind, got, err)
		}
		if kind == tensor.Bytes && source.(core.Sized).Size() != len(test.want) {
			t.Errorf("byte strings: size %d", source.(core.Sized).Size())
		}
		if err := source.Put(got[:len(got)-1]); !errors.Is(err, tensor.ErrData) {
			t.Errorf("%s: more elements than fit: got %v", kind, err)
		}
		if err := source.Put(make([]byte, len(got)+kind.Size()+4)); !errors.Is(err, tensor.ErrData) {
			t.Errorf("%s: fewer elements than wanted: got %v", kind, err)
		}
	}
	out := &pb.ModelInferRequest{Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "INT8", Shape: []int64{1}, Contents: &pb.InferTensorContents{IntContents: []int32{128}}}}}
	message, err := proto.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	var q request
	if err := q.parse(message); err != nil {
		t.Fatal(err)
	}
	if err := q.inputs[0].Put(make([]byte, 1)); !errors.Is(err, tensor.ErrData) {
		t.Errorf("128 as INT8: got %v", err)
	}
}

// FuzzMessage reads requests as they come, and wants what the generated code
// reads.
func FuzzMessage(f *testing.F) {
	for _, q := range []*pb.ModelInferRequest{
		rows(1, 2, 3, 4),
		{ModelName: "m", Parameters: map[string]*pb.InferParameter{"priority": {ParameterChoice: &pb.InferParameter_Uint64Param{Uint64Param: 1}}},
			Inputs:  []*pb.ModelInferRequest_InferInputTensor{{Name: "t", Datatype: "BYTES", Shape: []int64{1}, Contents: &pb.InferTensorContents{BytesContents: [][]byte{[]byte("a")}}}},
			Outputs: []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "y", Parameters: map[string]*pb.InferParameter{"classification": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 1}}}}}},
	} {
		b, err := proto.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	var q request
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := q.parse(b); err != nil {
			if codeOf(err) != invalidArgument {
				t.Errorf("%v is not the client's fault", err)
			}
			return
		}
		var want pb.ModelInferRequest
		if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, &want); err == nil {
			if q.model != want.ModelName || q.id != want.Id || len(q.inputs) != len(want.Inputs) || len(q.outputs) != len(want.Outputs) {
				t.Errorf("got %+v, want %v", q, &want)
			}
		}
		for i := range q.inputs {
			in := &q.inputs[i]
			n, err := in.shape.Elements()
			if err != nil || n > 1<<16 {
				continue
			}
			source, err := in.source()
			if err != nil {
				continue
			}
			size := n * in.kind.Size()
			if in.kind == tensor.Bytes {
				size = source.(core.Sized).Size()
			}
			_ = source.Put(make([]byte, size)) // must not panic
		}
	})
}

// FuzzCall frames messages as a hostile client may.
func FuzzCall(f *testing.F) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write([]byte("\x0a\x01m"))
	_ = w.Close()
	f.Add([]byte("\x00\x00\x00\x00\x03\x0a\x01m"), "")
	f.Add(append([]byte{1, 0, 0, 0, byte(packed.Len())}, packed.Bytes()...), "gzip")
	h := front.Handler(core.NewRegistry(), front.Options{MaxBodyBytes: 1 << 16}, []front.Front{Front()})
	f.Fuzz(func(t *testing.T, body []byte, encoding string) {
		for _, method := range []string{"ModelInfer", "ModelStreamInfer", "ModelMetadata"} {
			r := httptest.NewRequest("POST", service+method, bytes.NewReader(body))
			r.ProtoMajor = 2
			r.Header.Set("Content-Type", contentType)
			r.Header.Set("Grpc-Encoding", encoding)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			got := w.Header().Get("Grpc-Status") + w.Header().Get(http.TrailerPrefix+"Grpc-Status")
			if got == "" || got == "13" || got == "2" {
				t.Errorf("%s: status %q %s", method, got, w.Header().Get("Grpc-Message"))
			}
		}
	})
}
