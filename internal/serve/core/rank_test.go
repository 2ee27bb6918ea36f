package core

import (
	"testing"
	"time"
)

func TestRankOrdersByPriorityThenDeadline(t *testing.T) {
	now := time.Now()
	m := &model{Model: Model{Timeout: time.Minute, Objective: 100 * time.Millisecond}}
	ranks := map[string]rank{
		"usual":   m.rank(&Request{Arrived: now}),
		"earlier": m.rank(&Request{Arrived: now.Add(-time.Millisecond)}),
		"tight":   m.rank(&Request{Timeout: time.Millisecond, Arrived: now}),
		"patient": m.rank(&Request{Timeout: time.Hour, Arrived: now}),
		"first":   m.rank(&Request{Priority: 1, Arrived: now.Add(time.Second)}),
		"last":    m.rank(&Request{Priority: 200, Timeout: time.Millisecond, Arrived: now}),
	}
	for _, pair := range [][2]string{{"first", "tight"}, {"tight", "earlier"}, {"earlier", "usual"}, {"usual", "last"}, {"first", "last"}} {
		a, b := ranks[pair[0]], ranks[pair[1]]
		if a.compare(&b) >= 0 || b.compare(&a) <= 0 {
			t.Errorf("%s is not served before %s", pair[0], pair[1])
		}
	}
	if patient := ranks["patient"]; !patient.due.Equal(now.Add(100 * time.Millisecond)) {
		t.Error("a long timeout moved the objective")
	}
	none := &model{Model: Model{Timeout: time.Minute}}
	for name, got := range map[string]rank{
		"a model without objective":               none.rank(&Request{Arrived: now}),
		"a client's timeout":                      none.rank(&Request{Timeout: time.Millisecond, Arrived: now}),
		"a client's timeout before the objective": ranks["tight"],
	} {
		want := time.Time{}
		if name == "a client's timeout before the objective" {
			want = now.Add(100 * time.Millisecond)
		}
		if !got.promised.Equal(want) {
			t.Errorf("%s promises %v, want %v", name, got.promised, want)
		}
	}
}
