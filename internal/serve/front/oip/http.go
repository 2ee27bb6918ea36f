package oip

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
)

// Front returns the protocol's front over HTTP.
func Front() front.Front {
	return front.Front{Name: "Open Inference Protocol", Routes: []string{"/v2", "/v2/"}, New: func(r *core.Registry, o front.Options) http.Handler {
		return newHandler(r, o, NewMethods(r))
	}}
}

// handler serves the Open Inference Protocol.
type handler struct {
	registry *core.Registry
	options  front.Options
	methods  *Methods
	calls    pool
}

func newHandler(r *core.Registry, o front.Options, m *Methods) http.Handler {
	h := &handler{registry: r, options: o, methods: m}
	mux := http.NewServeMux()
	for path, methods := range h.routes() {
		allowed := strings.Join(slices.Sorted(maps.Keys(methods)), " or ")
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			method := r.Method
			if method == http.MethodHead {
				method = http.MethodGet
			}
			if f := methods[method]; f != nil {
				f(w, r)
				return
			}
			w.Header().Set("Allow", strings.ReplaceAll(allowed, " or ", ", "))
			front.JSON(w, http.StatusMethodNotAllowed, map[string]string{"error": fmt.Sprintf("%s takes %s, not %s", r.URL.Path, allowed, r.Method)})
		})
	}
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, r *http.Request) {
		front.JSON(w, http.StatusNotFound, map[string]string{"error": fmt.Sprintf("nothing is served at %s; GET /v2 names the extensions that are", r.URL.Path)})
	})
	return &routed{mux, h}
}

// routed finds inferences by itself, and all else by its mux.
type routed struct {
	*http.ServeMux
	h *handler
}

// ServeQuick implements front.Quick.
func (m *routed) ServeQuick(w http.ResponseWriter, r *http.Request) bool {
	model, version, ok := inference(r)
	if !ok {
		return false
	}
	if r.Pattern = inferPattern; version != "" {
		r.Pattern = inferVersionPattern
	}
	m.h.inferModel(w, r, model, version)
	return true
}

// The patterns of inferences.
const (
	modelPattern        = "/v2/models/{model}"
	versionPattern      = modelPattern + "/versions/{version}"
	inferPattern        = modelPattern + "/infer"
	inferVersionPattern = versionPattern + "/infer"
)

// inference is what a request asks for whose path needs no decoding; not ok where it
// is none, or another path would have to be understood.
func inference(r *http.Request) (model, version string, ok bool) {
	if r.Method != http.MethodPost || r.URL.RawPath != "" {
		return "", "", false
	}
	model, ok = strings.CutPrefix(r.URL.Path, "/v2/models/")
	if ok {
		model, ok = strings.CutSuffix(model, "/infer")
	}
	if !ok {
		return "", "", false
	}
	model, rest, versioned := strings.Cut(model, "/")
	if versioned {
		if version, ok = strings.CutPrefix(rest, "versions/"); !ok || !segment(version) {
			return "", "", false
		}
	}
	return model, version, segment(model)
}

// segment reports whether a part of a path is one that a mux takes as it is.
func segment(s string) bool {
	return s != "" && s != "." && s != ".." && strings.IndexByte(s, '/') < 0
}

// routes has a line for each path.
func (h *handler) routes() map[string]map[string]http.HandlerFunc {
	get := func(f http.HandlerFunc) map[string]http.HandlerFunc {
		return map[string]http.HandlerFunc{http.MethodGet: f}
	}
	post := func(f http.HandlerFunc) map[string]http.HandlerFunc {
		return map[string]http.HandlerFunc{http.MethodPost: f}
	}
	both := func(read, change http.HandlerFunc) map[string]http.HandlerFunc {
		return map[string]http.HandlerFunc{http.MethodGet: read, http.MethodPost: change}
	}
	routes := map[string]map[string]http.HandlerFunc{
		"/v2":                                               get(h.server),
		"/v2/{$}":                                           get(h.server),
		"/v2/openapi.yaml":                                  get(document("application/yaml", openAPI)),
		"/v2/inference.proto":                               get(document("text/plain; charset=utf-8", definition)),
		"/v2/health/live":                                   get(h.live),
		"/v2/health/ready":                                  get(h.ready),
		"/v2/repository/index":                              post(h.index),
		"/v2/repository/models/{model}/load":                post(h.load),
		"/v2/repository/models/{model}/unload":              post(h.unload),
		"/v2/models/stats":                                  get(h.statistics),
		"/v2/trace/setting":                                 both(h.trace, h.setTrace),
		"/v2/models/{model}/trace/setting":                  both(h.trace, h.setTrace),
		"/v2/logging":                                       both(h.logging, h.setLogging),
		"/v2/systemsharedmemory/status":                     get(h.regions),
		"/v2/systemsharedmemory/unregister":                 post(h.unregister),
		"/v2/systemsharedmemory/region/{region}/status":     get(h.regions),
		"/v2/systemsharedmemory/region/{region}/register":   post(h.register),
		"/v2/systemsharedmemory/region/{region}/unregister": post(h.unregister),
	}
	for _, path := range []string{modelPattern, versionPattern} {
		routes[path] = get(h.metadata)
		routes[path+"/config"] = get(h.config)
		routes[path+"/stats"] = get(h.statistics)
		routes[path+"/ready"] = get(h.modelReady)
		routes[path+"/infer"] = post(h.infer)
	}
	return routes
}
