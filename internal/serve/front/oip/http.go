package oip

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
	"oscine.dev/oscine/internal/tensor"
	"oscine.dev/oscine/internal/version"
)

// Front returns the protocol's front.
func Front() front.Front {
	return front.Front{Name: "Open Inference Protocol", Routes: []string{"/v2", "/v2/"}, New: newHandler}
}

// handler serves the Open Inference Protocol.
type handler struct {
	registry *core.Registry
	options  front.Options
	calls    pool
}

func newHandler(r *core.Registry, o front.Options) http.Handler {
	h := &handler{registry: r, options: o}
	mux := http.NewServeMux()
	route := func(method, path string, f http.HandlerFunc) {
		mux.HandleFunc(method+" "+path, f)
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", method)
			writeJSON(w, http.StatusMethodNotAllowed, map[string]string{"error": fmt.Sprintf("%s is asked with %s, not with %s", r.URL.Path, method, r.Method)})
		})
	}
	route(http.MethodGet, "/v2", h.server)
	route(http.MethodGet, "/v2/{$}", h.server)
	route(http.MethodGet, "/v2/health/live", h.live)
	route(http.MethodGet, "/v2/health/ready", h.ready)
	route(http.MethodPost, "/v2/repository/index", h.index)
	for _, path := range []string{"/v2/models/{model}", "/v2/models/{model}/versions/{version}"} {
		route(http.MethodGet, path, h.metadata)
		route(http.MethodGet, path+"/ready", h.modelReady)
		route(http.MethodPost, path+"/infer", h.infer)
	}
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusNotFound, map[string]string{"error": fmt.Sprintf("nothing is served at %s; GET /v2 names the extensions that are", r.URL.Path)})
	})
	return mux
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	front.Send(w, status, body)
}

// status maps the class of an error to HTTP.
func status(err error) int {
	switch {
	case errors.Is(err, front.ErrTooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, front.ErrEncoding):
		return http.StatusUnsupportedMediaType
	case errors.Is(err, front.ErrSlow):
		return http.StatusRequestTimeout
	case errdefs.IsInvalidArgument(err):
		return http.StatusBadRequest
	case errdefs.IsNotFound(err):
		return http.StatusNotFound
	case errdefs.IsResourceExhausted(err):
		return http.StatusTooManyRequests
	case errdefs.IsUnavailable(err):
		return http.StatusServiceUnavailable
	case errdefs.IsDeadlineExceeded(err):
		return http.StatusGatewayTimeout
	case errdefs.IsCanceled(err):
		return statusClientGone
	}
	return http.StatusInternalServerError
}

// statusClientGone is what nginx writes down for a client that closed its
// connection; nobody receives it.
const statusClientGone = 499

func writeError(w http.ResponseWriter, err error) {
	code := status(err)
	if code == http.StatusServiceUnavailable || code == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, code, map[string]string{"error": err.Error()})
}

func (h *handler) server(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{
		"name": "oscine", "version": version.Version, "extensions": []string{"binary_tensor_data", "schedule_policy"},
	})
}

func (h *handler) live(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]bool{"live": true})
}

func (h *handler) ready(w http.ResponseWriter, _ *http.Request) {
	for _, s := range h.registry.List() {
		if s.State != core.Ready {
			writeJSON(w, http.StatusServiceUnavailable, map[string]any{"ready": false, "error": s.Reason()})
			return
		}
	}
	writeJSON(w, http.StatusOK, map[string]bool{"ready": true})
}

func (h *handler) index(w http.ResponseWriter, _ *http.Request) {
	type entry struct {
		Name    string `json:"name"`
		Version string `json:"version"`
		State   string `json:"state"`
		Reason  string `json:"reason"`
	}
	entries := []entry{}
	for _, s := range h.registry.List() {
		e := entry{s.ServedAs, s.Version, "READY", ""}
		if s.State != core.Ready {
			e.State, e.Reason = "UNAVAILABLE", s.Reason()
		}
		entries = append(entries, e)
	}
	writeJSON(w, http.StatusOK, entries)
}

func (h *handler) modelReady(w http.ResponseWriter, r *http.Request) {
	s, err := h.registry.StatusOf(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		writeError(w, err)
		return
	}
	if s.State != core.Ready {
		writeJSON(w, http.StatusServiceUnavailable, map[string]any{"name": s.ServedAs, "ready": false, "error": s.Reason()})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"name": s.ServedAs, "ready": true})
}

func (h *handler) metadata(w http.ResponseWriter, r *http.Request) {
	s, err := h.registry.StatusOf(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		writeError(w, err)
		return
	}
	if len(s.Outputs) == 0 {
		writeError(w, fmt.Errorf("%w: %s", core.ErrNotReady, s.Reason()))
		return
	}
	type metadataTensor struct {
		Name     string  `json:"name"`
		DataType string  `json:"datatype"`
		Shape    []int64 `json:"shape"`
	}
	list := func(specs []tensor.Spec) []metadataTensor {
		out := make([]metadataTensor, len(specs))
		for i, s := range specs {
			out[i] = metadataTensor{s.Name, s.Type.String(), append([]int64{}, s.Shape...)}
		}
		return out
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"name": s.ServedAs, "versions": []string{s.Version}, "platform": s.Platform,
		"inputs": list(s.Inputs), "outputs": list(s.Outputs),
	})
}
