package openai

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
	"oscine.dev/oscine/internal/serve/language"
	"oscine.dev/oscine/internal/tensor"
)

// answer answers every request for which a model is asked.
func (h *handler) answer(w http.ResponseWriter, r *http.Request) {
	q := core.Request{Arrived: time.Now()}
	body, err := h.options.Body(w, r)
	if err != nil {
		writeError(w, err)
		return
	}
	defer body.Close()
	text, err := body.All(nil)
	if err != nil {
		writeError(w, err)
		return
	}
	var stream bool
	if q.Model, stream, err = read(text); err == nil {
		if q.Timeout, err = front.Timeout(r.Header); err == nil {
			err = h.isLanguage(r.Context(), q.Model)
		}
	}
	if err != nil {
		h.registry.Refused(q.Model, "")
		writeError(w, err)
		return
	}
	q.Inputs = []core.Input{
		{Name: language.Path, Type: tensor.Bytes, Shape: tensor.Shape{1}, Data: core.Bytes(language.AppendText(nil, []byte(r.URL.Path)))},
		{Name: language.Body, Type: tensor.Bytes, Shape: tensor.Shape{1}, Data: core.Bytes(language.AppendText(nil, text))},
	}
	out := &answer{w: w, stream: stream}
	q.Part = out.part
	rest, err := h.registry.Infer(r.Context(), q)
	if err == nil && len(rest.Outputs) > 0 {
		err = out.part(&rest)
	}
	defer rest.Free()
	out.end(err)
}

// read reads what this front needs of a request: of members with the same name
// the last, as the engine does.
func read(text []byte) (model string, stream bool, err error) {
	if err := front.CheckObject(text); err != nil {
		return "", false, fmt.Errorf("%w: the body is not a JSON object: %w", core.ErrInvalid, err)
	}
	var rawModel, rawStream []byte
	if err := front.Members(text, func(name string, value []byte) error {
		switch name {
		case "model":
			rawModel = value
		case "stream":
			rawStream = value
		}
		return nil
	}); err != nil {
		return "", false, fmt.Errorf("%w: the body: %w", core.ErrInvalid, err)
	}
	if json.Unmarshal(rawModel, &model) != nil || model == "" {
		return "", false, errModel
	}
	if rawStream != nil {
		if err := json.Unmarshal(rawStream, &stream); err != nil {
			return model, false, fmt.Errorf(`%w: "stream" must be true or false`, core.ErrInvalid)
		}
	}
	return model, stream, nil
}

// answer writes an answer that comes in parts: a stream as it comes, the rest at
// its end.
type answer struct {
	w      http.ResponseWriter
	stream bool
	begun  bool // some of a stream is written
	status int
	text   []byte // what is written at the end
}

// part takes a part. Its error stops the inference.
func (a *answer) part(p *core.Response) error {
	if len(p.Outputs) != len(language.Outputs()) {
		return fmt.Errorf("%w: %d outputs", language.ErrTensor, len(p.Outputs))
	}
	status, err := language.Code(p.Outputs[0].Data)
	if err != nil {
		return err
	}
	text, err := language.Text(p.Outputs[1].Data)
	if err != nil || len(text) == 0 {
		return err // without text: the model is still at work
	}
	a.status = status
	if !a.stream || status != http.StatusOK {
		a.text = append(a.text, text...)
		return nil
	}
	if !a.begun {
		a.begun = true
		header := a.w.Header()
		header.Set("Content-Type", "text/event-stream")
		header.Set("Cache-Control", "no-cache")
		header.Set("X-Accel-Buffering", "no") // proxies pass each part on at once
	}
	if err := front.Write(a.w, text); err != nil {
		return errors.Join(core.ErrCanceled, err)
	}
	return nil
}

// end writes what is left.
func (a *answer) end(err error) {
	switch {
	case err != nil && a.begun:
		// The status is out: clients find an error in the stream, and no end.
		text, _ := json.Marshal(map[string]*apiError{"error": errorOf(err)})
		_ = front.Write(a.w, []byte("data: "), text, []byte("\n\n"))
	case err != nil:
		writeError(a.w, err)
	case a.begun:
	case a.status == http.StatusOK:
		a.w.Header().Set("Content-Type", "application/json")
		front.Send(a.w, a.status, a.text)
	case a.status == 0:
		writeError(a.w, errors.New("the engine's answer is empty"))
	default:
		e := engineError(a.status, a.text)
		front.JSON(a.w, e.status, map[string]*apiError{"error": e})
	}
}
