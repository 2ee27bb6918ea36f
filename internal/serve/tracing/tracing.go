package tracing

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"oscine.dev/oscine/internal/printable"
	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/version"
)

// Options say where traces go.
type Options struct {
	Endpoint string // of a collector, OTLP over HTTP, such as http://192.0.2.9:4318
	Percent  int    // of the requests whose client has not decided that are traced
	Node     string // its name
}

// Tracer makes spans of requests and exports them. It implements core.Observer.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	context  propagation.TraceContext
}

// path is that of traces below a collector's address.
const path = "/v1/traces"

// New returns a Tracer. It sends in the background and drops spans while the
// endpoint does not answer.
func New(o Options) (*Tracer, error) {
	endpoint := strings.TrimSuffix(o.Endpoint, "/")
	if !strings.HasSuffix(endpoint, path) {
		endpoint += path
	}
	exporter, err := otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(endpoint))
	if err != nil {
		return nil, fmt.Errorf("export traces to %s: %w", o.Endpoint, err)
	}
	return newTracer(sdk.NewBatchSpanProcessor(exporter), o), nil
}

func newTracer(p sdk.SpanProcessor, o Options) *Tracer {
	provider := sdk.NewTracerProvider(
		sdk.WithSpanProcessor(p),
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(float64(o.Percent)/100))),
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "oscine"), attribute.String("service.version", version.Version), attribute.String("host.name", o.Node),
		)),
	)
	return &Tracer{provider: provider, tracer: provider.Tracer("oscine.dev/oscine/serve")}
}

// Close exports what waits, until ctx ends.
func (t *Tracer) Close(ctx context.Context) error { return t.provider.Shutdown(ctx) }

// Handler makes a span of each request that next, a mux, answers. The client's
// W3C traceparent is its parent, over HTTP and gRPC.
func (t *Tracer) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := t.context.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := t.tracer.Start(ctx, "front", trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		if !span.IsRecording() {
			next.ServeHTTP(w, r.WithContext(ctx))
			return
		}
		answer := &answer{ResponseWriter: w, status: http.StatusOK}
		r = r.WithContext(ctx)
		next.ServeHTTP(answer, r)
		t.describe(span, r, answer)
	})
}

// describe names a span of a front and says how the request ended.
func (t *Tracer) describe(span trace.Span, r *http.Request, w *answer) {
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		service, method, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		span.SetName(short(service + "/" + method))
		code := w.trailer("Grpc-Status")
		span.SetAttributes(attribute.String("rpc.system.name", "grpc"), attribute.String("rpc.method", short(service+"/"+method)), attribute.String("rpc.response.status_code", code))
		if code != "0" {
			span.SetStatus(codes.Error, short(w.trailer("Grpc-Message")))
		}
		return
	}
	route := r.Pattern
	if _, after, found := strings.Cut(route, " "); found {
		route = after
	}
	span.SetName(r.Method + " " + route)
	span.SetAttributes(attribute.String("http.request.method", r.Method), attribute.String("http.route", route), attribute.Int("http.response.status_code", w.status))
	if w.status >= 500 {
		span.SetStatus(codes.Error, http.StatusText(w.status))
	}
}

// maxText bounds what clients write into spans.
const maxText = 256

func short(text string) string { return printable.Text(text[:min(len(text), maxText)]) }

// Begin implements core.Observer: a request whose span is not recorded has no
// times.
func (t *Tracer) Begin(ctx context.Context) *core.Times {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return nil
	}
	return &core.Times{Began: time.Now()}
}

// End implements core.Observer.
func (t *Tracer) End(ctx context.Context, times *core.Times) {
	front := trace.SpanFromContext(ctx)
	front.SetAttributes(attribute.String("oscine.model", times.Model), attribute.String("oscine.model.version", times.Version))
	if times.Err != nil {
		front.AddEvent("exception", trace.WithAttributes(attribute.String("exception.message", short(times.Err.Error()))))
	}
	now := time.Now()
	until := func(next time.Time) time.Time {
		if next.IsZero() {
			return now
		}
		return next
	}
	span := func(name string, from, to time.Time, about ...attribute.KeyValue) {
		if from.IsZero() {
			return
		}
		about = append(about, attribute.String("oscine.model", times.Model))
		_, s := t.tracer.Start(ctx, name, trace.WithTimestamp(from), trace.WithAttributes(about...))
		if to == now && times.Err != nil {
			s.SetStatus(codes.Error, short(times.Err.Error()))
		}
		s.End(trace.WithTimestamp(to))
	}
	if times.Err != nil || !times.Batch.IsZero() { // else it had no run of its own
		span("queue", times.Began, until(times.Batch))
	}
	span("batch", times.Batch, until(times.Sent), attribute.Int("oscine.batch.requests", times.Requests), attribute.Int64("oscine.batch.rows", times.Rows))
	span("run", times.Sent, until(times.Ended), attribute.Bool("oscine.retried", times.Retried))
}

// answer notes the status of a response.
type answer struct {
	http.ResponseWriter
	status int
	begun  bool
}

// WriteHeader notes the first final status.
func (a *answer) WriteHeader(status int) {
	if !a.begun && status >= 200 {
		a.status, a.begun = status, true
	}
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Flush implements http.Flusher.
func (a *answer) Flush() { _ = http.NewResponseController(a.ResponseWriter).Flush() } // as far as the writer can

// trailer is what gRPC says at the end.
func (a *answer) trailer(name string) string {
	if value := a.Header().Get(http.TrailerPrefix + name); value != "" {
		return value
	}
	return a.Header().Get(name)
}
