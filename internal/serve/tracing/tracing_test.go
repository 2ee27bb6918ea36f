package tracing_test

import (
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"oscine.dev/oscine/internal/serve"
	"oscine.dev/oscine/internal/serve/fastpath"
	pb "oscine.dev/oscine/internal/serve/front/oip/inferencepb"
	"oscine.dev/oscine/internal/serve/servetest"
	"oscine.dev/oscine/internal/serve/tracing"
)

// spans are those that a collector got, as OTLP has them.
type spans struct {
	mu      sync.Mutex
	all     []*otlp.Span
	service string
}

func (s *spans) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	export := &collector.ExportTraceServiceRequest{}
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, export) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range export.ResourceSpans {
		for _, a := range resource.Resource.Attributes {
			if a.Key == "service.name" {
				s.service = a.Value.GetStringValue()
			}
		}
		for _, scope := range resource.ScopeSpans {
			s.all = append(s.all, scope.Spans...)
		}
	}
}

// named returns the spans of a name within a trace.
func (s *spans) named(trace, name string) (found []*otlp.Span) {
	for _, span := range s.all {
		if hex.EncodeToString(span.TraceId) == trace && span.Name == name {
			found = append(found, span)
		}
	}
	return found
}

func value(s *otlp.Span, key string) any {
	for _, a := range s.Attributes {
		if a.Key != key {
			continue
		}
		if text := a.Value.GetStringValue(); text != "" {
			return text
		}
		return a.Value.GetIntValue()
	}
	return nil
}

// traced serves a doubler whose requests are traced to a collector.
func traced(t *testing.T, percent int) (address string, got *spans, flush func()) {
	got = &spans{}
	server := httptest.NewServer(got)
	t.Cleanup(server.Close)
	tracer, err := tracing.New(tracing.Options{Endpoint: server.URL, Percent: percent, Node: "edge"})
	if err != nil {
		t.Fatal(err)
	}
	rig := servetest.New(t)
	rig.Registry.Observe(tracer)
	rig.Ready("m")
	models := httptest.NewUnstartedServer(serve.NewHandler(rig.Registry, serve.Options{Trace: tracer.Handler}))
	models.Config.Protocols = new(http.Protocols)
	models.Config.Protocols.SetHTTP1(true)
	models.Config.Protocols.SetUnencryptedHTTP2(true)
	go fastpath.Serve(models.Config, models.Listener)
	t.Cleanup(models.Close)
	return "http://" + models.Listener.Addr().String(), got, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := tracer.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}

const row = `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}`

func post(t *testing.T, address, model, traceparent string) int {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address+"/v2/models/"+model+"/infer", strings.NewReader(row))
	if err != nil {
		t.Fatal(err)
	}
	if traceparent != "" {
		q.Header.Set("Traceparent", traceparent)
	}
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

const (
	byHTTP = "0af7651916cd43dd8448eb211c80319c"
	byGRPC = "1af7651916cd43dd8448eb211c80319c"
	wrong  = "2af7651916cd43dd8448eb211c80319c"
	parent = "b7ad6b7169203331"
)

func TestTraces(t *testing.T) {
	address, got, flush := traced(t, 0)
	if status := post(t, address, "m", "00-"+byHTTP+"-"+parent+"-01"); status != 200 {
		t.Fatal(status)
	}
	if status := post(t, address, "other", "00-"+wrong+"-"+parent+"-01"); status != 404 {
		t.Fatal(status)
	}
	post(t, address, "m", "") // the client does not decide, and 0 % are traced
	post(t, address, "m", "00-3af7651916cd43dd8448eb211c80319c-"+parent+"-00")
	conn, err := grpc.NewClient(strings.TrimPrefix(address, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-"+byGRPC+"-"+parent+"-01")
	ask := &pb.ModelInferRequest{ModelName: "m", Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{1, 4}}}, RawInputContents: [][]byte{make([]byte, 16)}}
	if err := conn.Invoke(ctx, "/inference.GRPCInferenceService/ModelInfer", ask, &pb.ModelInferResponse{}); err != nil {
		t.Fatal(err)
	}
	ask.ModelName = "other"
	if err := conn.Invoke(ctx, "/inference.GRPCInferenceService/ModelInfer", ask, &pb.ModelInferResponse{}); err == nil {
		t.Fatal("a model that is not there answers")
	}
	flush()

	if got.service != "oscine" {
		t.Errorf("service %q", got.service)
	}
	for trace, name := range map[string]string{byHTTP: "POST /v2/models/{model}/infer", byGRPC: "inference.GRPCInferenceService/ModelInfer"} {
		fronts := got.named(trace, name)
		if len(fronts) == 0 {
			t.Fatalf("no span %q in %v", name, got.all)
		}
		front := fronts[0]
		if hex.EncodeToString(front.ParentSpanId) != parent || front.Kind != otlp.Span_SPAN_KIND_SERVER || value(front, "oscine.model") != "m" {
			t.Errorf("%v", front)
		}
		at := front.StartTimeUnixNano
		for _, name := range []string{"queue", "batch", "run"} {
			parts := got.named(trace, name)
			if len(parts) != 1 {
				t.Fatalf("%d spans %q", len(parts), name)
			}
			part := parts[0]
			if !slices.Equal(part.ParentSpanId, front.SpanId) || part.StartTimeUnixNano < at || part.EndTimeUnixNano < part.StartTimeUnixNano || part.EndTimeUnixNano > front.EndTimeUnixNano {
				t.Errorf("%s of %s: %v", name, front, part)
			}
			at = part.EndTimeUnixNano
		}
		if batch := got.named(trace, "batch")[0]; value(batch, "oscine.batch.requests") != int64(1) || value(batch, "oscine.batch.rows") != int64(1) {
			t.Errorf("%v", batch)
		}
	}
	if failed := got.named(byGRPC, "inference.GRPCInferenceService/ModelInfer"); len(failed) != 2 || failed[1].Status.GetCode() != otlp.Status_STATUS_CODE_ERROR || value(failed[1], "rpc.response.status_code") != "5" {
		t.Errorf("%v", failed)
	}
	if missing := got.named(wrong, "POST /v2/models/{model}/infer"); len(missing) != 1 || value(missing[0], "http.response.status_code") != int64(404) {
		t.Errorf("%v", missing)
	}
	// Three with a front each, two of them with three parts, and the refused gRPC.
	if len(got.all) != 4+6 {
		t.Errorf("%d spans: %v", len(got.all), got.all)
	}
}

func TestRatio(t *testing.T) {
	address, got, flush := traced(t, 100)
	for range 3 {
		post(t, address, "m", "")
	}
	flush()
	if len(got.all) != 3*4 {
		t.Errorf("%d spans of 3 requests", len(got.all))
	}
}

// A collector that is not there neither slows a request down nor holds the
// daemon up.
func TestAbsentCollector(t *testing.T) {
	tracer, err := tracing.New(tracing.Options{Endpoint: "http://127.0.0.1:1", Percent: 100})
	if err != nil {
		t.Fatal(err)
	}
	handler := tracer.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }))
	begin := time.Now()
	for range 5000 {
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v2", nil))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_ = tracer.Close(ctx)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("5000 requests and the end took %v", took)
	}
}
