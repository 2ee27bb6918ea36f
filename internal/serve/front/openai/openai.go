package openai

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
	"oscine.dev/oscine/internal/serve/language"
)

const modelsPath = "/v1/models"

// Front returns the protocol's front.
func Front() front.Front {
	routes := []string{"GET " + modelsPath, "GET " + modelsPath + "/{model}", "/v1/"}
	for _, path := range language.Paths() {
		routes = append(routes, "POST "+path)
	}
	return front.Front{Name: "OpenAI", Routes: routes, New: newHandler, Reject: writeError}
}

// handler serves OpenAI's API.
type handler struct {
	registry *core.Registry
	options  front.Options
}

func newHandler(r *core.Registry, o front.Options) http.Handler {
	h := &handler{registry: r, options: o}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+modelsPath, h.list)
	mux.HandleFunc("GET "+modelsPath+"/{model}", h.describe)
	for _, path := range language.Paths() {
		mux.HandleFunc("POST "+path, h.answer)
	}
	mux.HandleFunc("/v1/", unknown)
	return mux
}

// unknown answers what has no route, in the API's form: its clients read no other.
func unknown(w http.ResponseWriter, r *http.Request) {
	e := &apiError{Message: fmt.Sprintf("nothing is served at %s %s: see docs/language-models.md for what is", r.Method, r.URL.Path), Type: typeInvalid, Code: new(codeURL), status: http.StatusNotFound}
	if slices.Contains(language.Paths(), r.URL.Path) {
		e.Message, e.Code, e.status = fmt.Sprintf("%s takes POST", r.URL.Path), nil, http.StatusMethodNotAllowed
		w.Header().Set("Allow", http.MethodPost)
	}
	front.JSON(w, e.status, map[string]*apiError{"error": e})
}

// entry is one model in the forms of two protocols that share the path: OpenAI's,
// and KServe's version 1, which has the members name and ready.
type entry struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
	Name    string `json:"name"`
	Ready   bool   `json:"ready"`
}

func entryOf(s *core.Status) entry {
	return entry{ID: s.ServedAs, Object: "model", OwnedBy: "oscine", Name: s.ServedAs, Ready: s.Answers()}
}

// list lists the models that the client may ask, each once whatever versions it
// has; models has their names as KServe's version 1 does.
func (h *handler) list(w http.ResponseWriter, r *http.Request) {
	all, names := []entry{}, []string{}
	for _, s := range h.registry.List(r.Context()) {
		if slices.Contains(names, s.ServedAs) {
			continue
		}
		if s, err := h.registry.StatusOf(r.Context(), s.ServedAs, ""); err == nil { // else it was removed meanwhile
			all, names = append(all, entryOf(&s)), append(names, s.ServedAs)
		}
	}
	front.JSON(w, http.StatusOK, map[string]any{"object": "list", "data": all, "models": names})
}

func (h *handler) describe(w http.ResponseWriter, r *http.Request) {
	s, err := h.registry.StatusOf(r.Context(), r.PathValue("model"), "")
	if err != nil {
		writeError(w, err)
		return
	}
	front.JSON(w, http.StatusOK, entryOf(&s))
}

// isLanguage returns nil where the model is one that this front can ask.
func (h *handler) isLanguage(ctx context.Context, name string) error {
	s, err := h.registry.Ready(ctx, name, "")
	switch {
	case err != nil:
		return err
	case !language.Is(s.Inputs, s.Outputs):
		return fmt.Errorf("%w: %s is not a language model: ask it by the Open Inference Protocol (/v2/models/%s)", core.ErrInvalid, s.ServedAs, s.ServedAs)
	}
	return nil
}
