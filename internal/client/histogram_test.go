package client

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func histogram(t *testing.T, text string) *dto.Metric {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader("# TYPE h histogram\n" + text))
	if err != nil {
		t.Fatal(err)
	}
	return families["h"].GetMetric()[0]
}

func TestHistogram(t *testing.T) {
	early := histogram(t, "h_bucket{le=\"0.1\"} 1\nh_bucket{le=\"0.2\"} 2\nh_bucket{le=\"+Inf\"} 2\nh_sum 1\nh_count 2\n")
	late := histogram(t, "h_bucket{le=\"0.1\"} 7\nh_bucket{le=\"0.2\"} 11\nh_bucket{le=\"+Inf\"} 12\nh_sum 1\nh_count 12\n")
	for name, test := range map[string]struct {
		got, want *Histogram
		above     uint64
	}{
		"all":     {HistogramOf(late), &Histogram{12, []float64{.1, .2}, []uint64{7, 4}}, 1},
		"between": {Between(early, late), &Histogram{10, []float64{.1, .2}, []uint64{6, 3}}, 1},
		"nothing": {Between(late, late), &Histogram{0, []float64{.1, .2}, []uint64{0, 0}}, 0},
		// The node collected its metrics while it counted.
		"late count": {HistogramOf(histogram(t, "h_bucket{le=\"0.1\"} 2\nh_bucket{le=\"0.2\"} 1\nh_sum 1\nh_count 1\n")),
			&Histogram{1, []float64{.1, .2}, []uint64{2, 0}}, 0},
	} {
		if d := cmp.Diff(test.want, test.got); d != "" || test.got.Above() != test.above {
			t.Errorf("%s: %d above, %s", name, test.got.Above(), d)
		}
	}
	if Between(nil, late) != nil || Between(late, early) != nil {
		t.Error("a metric that is new, or began again, has a difference")
	}
	h := Between(early, late)
	for share, want := range map[float64]float64{.5: .1, .6: .1, .9: .2} {
		if got, ok := h.Quantile(share); !ok || got != want {
			t.Errorf("%g: got %g, %v, want %g", share, got, ok, want)
		}
	}
	if _, ok := h.Quantile(.99); ok {
		t.Error("a share that is above all bounds has one")
	}
	if _, ok := Between(late, late).Quantile(.5); ok {
		t.Error("nothing has a quantile")
	}
}
