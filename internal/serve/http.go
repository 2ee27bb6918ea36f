package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"oscine.dev/oscine/internal/tensor"
)

// Options are the settings of the inference endpoint.
type Options struct {
	Version      string // of Oscine, for the server's metadata
	MaxBodyBytes int64  // of one request; 0 means 64 MiB
}

const defaultMaxBody = 64 << 20

// handler serves the Open Inference Protocol.
type handler struct {
	registry *Registry
	options  Options
	calls    pool
}

// NewHandler serves the registry's models over the Open Inference Protocol v2
// with Triton's binary tensor extension: /v2, /v2/health/{live,ready} and
// /v2/models/….
//
// Source: github.com/kserve/open-inference-protocol,
// specification/protocol/inference_rest.md, and Triton's
// docs/protocol/extension_binary_data.md.
func NewHandler(r *Registry, o Options) http.Handler {
	if o.MaxBodyBytes == 0 {
		o.MaxBodyBytes = defaultMaxBody
	}
	h := &handler{registry: r, options: o}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2", h.server)
	mux.HandleFunc("GET /v2/{$}", h.server)
	mux.HandleFunc("GET /v2/health/live", h.live)
	mux.HandleFunc("GET /v2/health/ready", h.ready)
	mux.HandleFunc("POST /v2/repository/index", h.index)
	for _, path := range []string{"/v2/models/{model}", "/v2/models/{model}/versions/{version}"} {
		mux.HandleFunc("GET "+path, h.metadata)
		mux.HandleFunc("GET "+path+"/ready", h.modelReady)
		mux.HandleFunc("POST "+path+"/infer", h.infer)
	}
	return mux
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// status maps an error to HTTP.
func status(err error) int {
	switch {
	case errors.Is(err, ErrInvalid), errors.Is(err, tensor.ErrShape), errors.Is(err, tensor.ErrData):
		return http.StatusBadRequest
	case errors.Is(err, ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, ErrNotReady), errors.Is(err, ErrOverloaded):
		return http.StatusServiceUnavailable
	case errors.Is(err, ErrExpired):
		return http.StatusGatewayTimeout
	case errors.Is(err, errTooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, errEncoding):
		return http.StatusUnsupportedMediaType
	}
	return http.StatusInternalServerError
}

func writeError(w http.ResponseWriter, err error) {
	code := status(err)
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, code, map[string]string{"error": err.Error()})
}

func (h *handler) server(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{
		"name": "oscine", "version": h.options.Version, "extensions": []string{"binary_tensor_data", "model_repository", "schedule_policy"},
	})
}

func (h *handler) live(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]bool{"live": true})
}

func (h *handler) ready(w http.ResponseWriter, _ *http.Request) {
	for _, s := range h.registry.List() {
		if s.State != Ready {
			writeJSON(w, http.StatusServiceUnavailable, map[string]any{"ready": false, "error": notReady(&s)})
			return
		}
	}
	writeJSON(w, http.StatusOK, map[string]bool{"ready": true})
}

func notReady(s *Status) string {
	if s.Message == "" {
		return fmt.Sprintf("model %s is %s", s.Name, s.State)
	}
	return fmt.Sprintf("model %s is %s: %s", s.Name, s.State, s.Message)
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
		e := entry{s.Name, s.Version, "READY", ""}
		if s.State != Ready {
			e.State, e.Reason = "UNAVAILABLE", notReady(&s)
		}
		entries = append(entries, e)
	}
	writeJSON(w, http.StatusOK, entries)
}

func (h *handler) modelReady(w http.ResponseWriter, r *http.Request) {
	m, err := h.registry.model(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		writeError(w, err)
		return
	}
	s := m.status()
	if s.State != Ready {
		writeJSON(w, http.StatusServiceUnavailable, map[string]any{"name": s.Name, "ready": false, "error": notReady(&s)})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"name": s.Name, "ready": true})
}

func (h *handler) metadata(w http.ResponseWriter, r *http.Request) {
	m, err := h.registry.model(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		writeError(w, err)
		return
	}
	s := m.status()
	if len(s.Outputs) == 0 {
		writeError(w, fmt.Errorf("%w: %s", ErrNotReady, notReady(&s)))
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
		"name": s.Name, "versions": []string{s.Version}, "platform": "onnxruntime_onnx",
		"inputs": list(s.Inputs), "outputs": list(s.Outputs),
	})
}
