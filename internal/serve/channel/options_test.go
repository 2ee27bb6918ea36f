package channel_test

import (
	"maps"
	"testing"

	"oscine.dev/oscine/internal/serve/channel"
)

func TestSplitOptions(t *testing.T) {
	for _, test := range []struct {
		all, engine, worker map[string]string
		err                 string
	}{
		{nil, nil, nil, ""},
		{map[string]string{"batch": "alone", "slots": "2"}, map[string]string{"slots": "2"}, map[string]string{"batch": "alone"}, ""},
		{map[string]string{"batch": "independent", "deterministic": "false"}, nil, map[string]string{"batch": "independent", "deterministic": "false"}, ""},
		{map[string]string{"deterministic": "true"}, nil, map[string]string{"deterministic": "true"}, ""},
		{map[string]string{"deterministic": "maybe"}, nil, nil, "option deterministic=maybe: choose true or false"},
		{map[string]string{"batch": "off"}, nil, nil, "option batch=off: choose independent or alone"},
		{map[string]string{"batch": ""}, nil, nil, "option batch=: choose independent or alone"},
	} {
		before := maps.Clone(test.all)
		engine, worker, err := channel.SplitOptions(test.all)
		if err != nil {
			if err.Error() != test.err {
				t.Errorf("%v: got the error %q, want %q", test.all, err, test.err)
			}
		} else if test.err != "" || !maps.Equal(engine, test.engine) || !maps.Equal(worker, test.worker) {
			t.Errorf("%v: got %v for the engine and %v for the worker, want %v and %v, error %q", test.all, engine, worker, test.engine, test.worker, test.err)
		}
		if !maps.Equal(test.all, before) {
			t.Errorf("%v was changed", before)
		}
	}
}
