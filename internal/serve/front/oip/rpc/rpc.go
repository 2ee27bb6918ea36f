package rpc

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
	"oscine.dev/oscine/internal/serve/front/oip"
	"oscine.dev/oscine/internal/serve/region"
)

const (
	service     = "/inference.GRPCInferenceService/"
	contentType = "application/grpc"
)

// Front returns the protocol's front.
func Front() front.Front {
	return front.Front{Name: "Open Inference Protocol over gRPC", Routes: []string{service}, New: func(r *core.Registry, o front.Options) http.Handler {
		return newHandler(r, o, oip.NewMethods(r))
	}}
}

// handler answers the calls of the service.
type handler struct {
	registry *core.Registry
	options  front.Options
	methods  map[string]method
	calls    sync.Pool
	streams  streams
}

// method answers one call.
type method func(context.Context, *call) error

func newHandler(r *core.Registry, o front.Options, m *oip.Methods) *handler {
	h := &handler{registry: r, options: o, calls: sync.Pool{New: func() any { return new(call) }}, streams: streams{open: map[string]int{}}}
	h.methods = map[string]method{
		"ServerLive":                   unary(m.ServerLive),
		"ServerReady":                  unary(m.ServerReady),
		"ModelReady":                   unary(m.ModelReady),
		"ServerMetadata":               unary(m.ServerMetadata),
		"ModelMetadata":                unary(m.ModelMetadata),
		"ModelConfig":                  unary(m.ModelConfig),
		"ModelStatistics":              unary(m.ModelStatistics),
		"RepositoryIndex":              unary(m.RepositoryIndex),
		"RepositoryModelLoad":          unary(m.RepositoryModelLoad),
		"RepositoryModelUnload":        unary(m.RepositoryModelUnload),
		"SystemSharedMemoryStatus":     unary(m.SystemSharedMemoryStatus),
		"SystemSharedMemoryRegister":   unary(withoutRegions(m.SystemSharedMemoryRegister)),
		"SystemSharedMemoryUnregister": unary(m.SystemSharedMemoryUnregister),
		"TraceSetting":                 unary(m.TraceSetting),
		"LogSettings":                  unary(m.LogSettings),
		"ModelInfer":                   h.infer,
		"ModelStreamInfer":             h.stream,
	}
	return h
}

// message is a protobuf message that may be made from nothing.
type message[T any] interface {
	proto.Message
	*T
}

// unary frames a method of one request and one answer.
func unary[Q, A any, QP message[Q], AP message[A]](f func(context.Context, QP) (AP, error)) method {
	return func(ctx context.Context, c *call) error {
		c.body.AtMost(front.MaxControl)
		if err := c.receive(); err != nil {
			return err
		}
		q := QP(new(Q))
		if err := proto.Unmarshal(c.message, q); err != nil {
			return fmt.Errorf("%w: the message is not a %s: %w", core.ErrInvalid, q.ProtoReflect().Descriptor().Name(), err)
		}
		a, err := f(ctx, q)
		if err != nil {
			return err
		}
		if c.reply, err = (proto.MarshalOptions{}).MarshalAppend(append(c.reply[:0], make([]byte, prefixBytes)...), a); err != nil {
			return err
		}
		return c.send(c.reply)
	}
}

// withoutRegions keeps a method from shared memory: descriptors come with requests
// of HTTP/1.1 only.
func withoutRegions[Q, A any](f func(context.Context, Q) (A, error)) func(context.Context, Q) (A, error) {
	return func(ctx context.Context, q Q) (A, error) { return f(region.With(ctx, nil), q) }
}

// ServeHTTP answers one call.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind := r.Header.Get("Content-Type")
	switch {
	case r.ProtoMajor < 2:
		http.Error(w, "gRPC needs HTTP/2", http.StatusHTTPVersionNotSupported)
		return
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "gRPC methods are called with POST", http.StatusMethodNotAllowed)
		return
	case kind != contentType && kind != contentType+"+proto" && !strings.HasPrefix(kind, contentType+";"):
		http.Error(w, "gRPC messages have the type "+contentType, http.StatusUnsupportedMediaType)
		return
	}
	c := h.calls.Get().(*call)
	defer h.release(c)
	c.handler, c.w, c.r, c.answered, c.streamed, c.arrived = h, w, r, false, false, time.Now()
	c.end(h.serve(c))
}

func (h *handler) serve(c *call) error {
	name := strings.TrimPrefix(c.r.URL.Path, service)
	m := h.methods[name]
	if m == nil {
		return &failure{unimplemented, fmt.Sprintf("method %.100q of the Open Inference Protocol is not answered here", name)}
	}
	ctx, cancel, left, err := deadline(c.r)
	if err != nil {
		return err
	}
	defer cancel()
	if c.request.left = left; left > core.MaxTimeout {
		c.request.left = 0 // its context ends it all the same
	}
	if c.body, err = h.options.Body(c.w, c.r); err != nil {
		return err
	}
	defer c.body.Close()
	return m(ctx, c)
}

// release keeps a call's memory for another one.
func (h *handler) release(c *call) {
	for _, b := range []*[]byte{&c.message, &c.packed, &c.reply} {
		if cap(*b) > keepBuffer {
			*b = nil
		}
	}
	c.request.forget()
	clear(c.inputs)
	c.w, c.r, c.body = nil, nil, front.Body{}
	h.calls.Put(c)
}
