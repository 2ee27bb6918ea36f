package kserve

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
	"oscine.dev/oscine/internal/tensor"
)

// Front returns the protocol's front. The list of models at the same path is
// OpenAI's too: package openai answers it for both.
func Front() front.Front {
	return front.Front{Name: "KServe v1", Routes: []string{"POST /v1/models/{call}"}, New: newHandler}
}

type handler struct {
	registry *core.Registry
	options  front.Options
}

func newHandler(r *core.Registry, o front.Options) http.Handler {
	h := &handler{r, o}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/models/{call}", h.call)
	return mux
}

// call answers MODEL:predict.
func (h *handler) call(w http.ResponseWriter, r *http.Request) {
	model, verb, ok := strings.Cut(r.PathValue("call"), ":")
	if !ok || verb != "predict" {
		front.JSON(w, http.StatusNotFound, map[string]string{"error": fmt.Sprintf("nothing is served at %s; send requests to /v1/models/NAME:predict", r.URL.Path)})
		return
	}
	q := core.Request{Model: model, Arrived: time.Now()}
	if err := h.registry.Accepts(r.Context(), &q); err != nil {
		front.Error(w, err)
		return
	}
	body, err := h.options.Body(w, r)
	if err != nil {
		h.refused(w, model, err)
		return
	}
	defer body.Close()
	text, err := body.All(nil)
	if err != nil {
		h.refused(w, model, err)
		return
	}
	s, err := h.registry.Ready(r.Context(), model, "")
	if err != nil {
		front.Error(w, err)
		return
	}
	p, err := parse(text, s.Inputs)
	if err == nil {
		err = answerable(s.Outputs)
	}
	if err == nil {
		q.Timeout, err = front.Timeout(r.Header)
	}
	if err != nil {
		h.refused(w, model, err)
		return
	}
	q.Inputs = p.inputs
	response, err := h.registry.Infer(r.Context(), q)
	if err != nil {
		front.Error(w, err)
		return
	}
	defer response.Free()
	reply, err := p.answer(response.Outputs)
	if err != nil {
		front.Error(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	front.Send(w, http.StatusOK, reply)
}

// refused answers a request that could not be read, and counts it.
func (h *handler) refused(w http.ResponseWriter, model string, err error) {
	h.registry.Refused(model, "")
	front.Error(w, err)
}

// answerable refuses, before anything is computed, what JSON cannot hold.
func answerable(outputs []tensor.Spec) error {
	for i := range outputs {
		if out := &outputs[i]; !out.Type.HasJSON() {
			return fmt.Errorf("%w: output %q: %s elements cannot be written as JSON: ask by /v2 with binary tensors", core.ErrInvalid, out.Name, out.Type)
		}
	}
	return nil
}
