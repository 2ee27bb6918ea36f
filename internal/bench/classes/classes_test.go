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
		"the period -1s is":    {Period: -time.Second, Duration: time.Second},
	} {
		if r, err := Run(t.Context(), o); err == nil || r != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
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
