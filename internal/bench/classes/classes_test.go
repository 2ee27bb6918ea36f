package classes

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/bench/latency"
)

func TestRunRefusesWhatCannotBeMeasured(t *testing.T) {
	for want, o := range map[string]Options{
		`no class "turbo"`:     {Classes: []string{"turbo"}, Duration: time.Second},
		`no load "gpu"`:        {Loads: []string{"gpu"}, Duration: time.Second},
		`no scheduler "eevdf"`: {Schedulers: []string{"eevdf"}, Duration: time.Second},
		"too short":            {Duration: time.Millisecond},
		"a load of -1 threads": {Threads: -1, Duration: time.Second},
		"a load of 5000 thre":  {Threads: 5000, Duration: time.Second},
		"the period -1s is":    {Period: -time.Second, Duration: time.Second},
		"too short a measure":  {Period: 1<<63 - 1, Duration: time.Second},
		"more than 10000000":   {Period: time.Nanosecond, Duration: time.Minute},
		"load cpu is asked":    {Loads: []string{"cpu", "file", "cpu"}, Duration: time.Second},
	} {
		if r, err := Run(t.Context(), o); err == nil || r != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

func TestTotalCountsEverySeries(t *testing.T) {
	for _, tc := range []struct {
		o    Options
		want time.Duration
	}{
		{Options{Duration: time.Second}, 3 * time.Second},
		{Options{Duration: time.Second, Loads: []string{"cpu"}}, 6 * time.Second},
		{Options{Duration: time.Second, Classes: []string{"batch"}, Schedulers: Schedulers(), Loads: []string{"cpu"}}, 4 * time.Second},
		{Options{Duration: 1 << 62, Loads: []string{"cpu"}}, 1 << 62}, // and never wraps around
	} {
		if got := tc.o.Total(); got != tc.want {
			t.Errorf("%+v: got %v, want %v", tc.o, got, tc.want)
		}
	}
}

func TestReportTellsBackEndsApart(t *testing.T) {
	var h latency.Histogram
	for us := range 200 {
		h.Record(time.Duration(us) * time.Microsecond)
	}
	r := &Report{Kernel: "<7.2>", CPUs: 2, Series: []Series{
		{Class: "interactive", Scheduler: Stock, Histogram: &h}, {Class: "interactive", Scheduler: SchedExt, Loaded: true, Histogram: &h},
		{Class: "realtime", Scheduler: Stock, Problem: "no CPU <free>"}, {Class: "batch", Scheduler: Stock, Histogram: &latency.Histogram{}},
	}}
	var text, svg bytes.Buffer
	if err := errors.Join(r.WriteText(&text), r.WriteSVG(&svg)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"interactive, alone", "interactive under sched_ext, loaded"} {
		if !strings.Contains(text.String(), want) || !strings.Contains(svg.String(), want) {
			t.Errorf("%q is missing in\n%s", want, text.String())
		}
	}
	for _, want := range []string{"realtime, alone: not measured", "no CPU &lt;free&gt;", "batch, alone: not measured", "wake-up latency", "wake-ups that were later"} {
		if !strings.Contains(svg.String(), want) {
			t.Errorf("the drawing lacks %q", want)
		}
	}
	if strings.Count(svg.String(), colour(&r.Series[0])) == 0 || colour(&r.Series[0]) == colour(&r.Series[1]) {
		t.Error("the back ends have one colour")
	}
	for d := xml.NewDecoder(&svg); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
