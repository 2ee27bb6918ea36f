package core

import (
	"testing"
	"time"
)

const ms = time.Millisecond

func TestCurve(t *testing.T) {
	flat, linear := newCurve([]CurvePoint{{1, 2 * ms}, {2, 2 * ms}, {4, 2 * ms}}), newCurve([]CurvePoint{{1, 2 * ms}, {2, 4 * ms}, {4, 8 * ms}})
	for _, test := range []struct {
		c    *curve
		rows int64
		want time.Duration
		ok   bool
	}{
		{flat, 1, 2 * ms, true}, {flat, 2, 2 * ms, true}, {flat, 7, 2 * ms, true},
		{linear, 1, 0, true}, {linear, 3, 0, true},
		{linear, 4, 2 * ms, true}, // not known: at most what it costs alone
		{newCurve(nil), 1, 0, false}, {newCurve([]CurvePoint{{2, ms}}), 1, 0, false},
	} {
		if got, ok := test.c.saves(test.rows); got != test.want || ok != test.ok {
			t.Errorf("%+v: %d rows: saves %v, %v; want %v, %v", test.c.known(), test.rows, got, ok, test.want, test.ok)
		}
	}
	knee := newCurve([]CurvePoint{{1, 2 * ms}, {4, 4 * ms}, {8, 12 * ms}})
	for _, test := range []struct {
		c       *curve
		waiting int64
		want    int64
	}{{flat, 4, 0}, {linear, 4, 0}, {knee, 4, 0}, {knee, 8, 4}, {knee, 9, 0}, {newCurve(nil), 8, 0}} {
		test.c.runs = 1
		if got := test.c.most(test.waiting); got != test.want {
			t.Errorf("%+v: of %d rows %d are taken, want %d", test.c.known(), test.waiting, got, test.want)
		}
	}
	if knee.runs = retried; knee.most(8) != 0 {
		t.Error("a large run is never tried again")
	}
	c := newCurve(nil)
	for range 100 {
		c.observe(3, 3*ms)
		c.observe(4, 5*ms)
	}
	if got := c.known(); len(got) != 1 || got[0].Rows < 3.4 || got[0].Rows > 3.7 || got[0].Time < 39*ms/10 || got[0].Time > 42*ms/10 {
		t.Errorf("got %+v", got)
	}
}
