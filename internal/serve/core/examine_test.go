package core_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/servetest"
)

// A model that is held to the answers of the one before gets no request before it has
// given them; where it does not, no client has noticed.
func TestExaminedReplacement(t *testing.T) {
	for name, replace := range map[string]func(*core.Registry, context.Context, core.Model) error{"beside": (*core.Registry).Replace, "in turn": (*core.Registry).ReplaceInTurn} {
		t.Run(name, func(t *testing.T) {
			r := servetest.New(t)
			r.Ready("m")
			ask := func(m core.Examined) []byte {
				t.Helper()
				in := m.Status.Inputs[0]
				shape := in.Concrete(1, 1)
				size, err := shape.Bytes(in.Type)
				if err != nil {
					t.Fatal(err)
				}
				outputs, err := m.Ask(t.Context(), []core.Input{{Name: in.Name, Type: in.Type, Shape: shape, Data: core.Bytes(make([]byte, size))}})
				if err != nil || len(outputs) == 0 {
					t.Errorf("asked: %+v, %v", outputs, err)
					return nil
				}
				return outputs[0].Data
			}
			var reason error
			next := func() core.Model {
				return core.Model{Name: "m", Instances: core.One(servetest.Worker(t.TempDir(), "doubler")), Examine: func(_ context.Context, old core.Examined) func(context.Context, core.Examined) error {
					first := ask(old)
					return func(_ context.Context, next core.Examined) error {
						if second := ask(next); len(first) == 0 || !slices.Equal(first, second) {
							t.Errorf("the old one answers %x, the new one %x", first, second)
						}
						return reason
					}
				}}
			}
			stop := asking(t, r, 2)
			if err := replace(r.Registry, t.Context(), next()); err != nil {
				t.Error(err)
			}
			reason = errors.New("it answers otherwise")
			if err := replace(r.Registry, t.Context(), next()); err == nil || !strings.Contains(err.Error(), "it answers otherwise") {
				t.Errorf("one that fails: %v", err)
			}
			answered := stop()
			if s, err := r.Registry.Status("m"); err != nil || s.State != core.Ready || s.Requests != answered {
				t.Errorf("%d requests were answered, %+v, %v", answered, s, err)
			}
		})
	}
}
