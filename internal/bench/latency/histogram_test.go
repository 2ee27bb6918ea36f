package latency

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestHistogramQuantilesMatchSortedSamples(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var h Histogram
	var all []time.Duration
	for range 20_000 {
		d := time.Duration(random.ExpFloat64() * 30_000)
		all = append(all, d)
		h.Record(d)
	}
	slices.Sort(all)
	for _, q := range []float64{.01, .5, .9, .99, .999, 1} {
		want := all[int(q*float64(len(all)))-1]
		got := h.Quantile(q)
		if got < want || float64(got) > float64(want)*(1+1./32)+1 {
			t.Errorf("quantile %g: got %v, want %v up to a bucket more", q, got, want)
		}
	}
	if h.Max() != all[len(all)-1] || h.Min() != all[0] {
		t.Errorf("got %v…%v, want %v…%v", h.Min(), h.Max(), all[0], all[len(all)-1])
	}
}

func TestHistogramSurvivesJSON(t *testing.T) {
	var h, back Histogram
	for _, us := range []int{3, 3, 8, 40, 5000} {
		h.Record(time.Duration(us) * time.Microsecond)
	}
	data, err := json.Marshal(&h)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if back.Quantile(.5) != h.Quantile(.5) || back.Max() != h.Max() || back.Count() != 5 {
		t.Errorf("got p50 %v max %v, want %v %v", back.Quantile(.5), back.Max(), h.Quantile(.5), h.Max())
	}
	if got := back.Above(10 * time.Microsecond); got != 2 {
		t.Errorf("above 10 µs: got %d, want 2", got)
	}
}

func FuzzHistogramJSON(f *testing.F) {
	f.Add([]byte(`{"count":1,"buckets":[{"fromNs":9223372036854775807,"count":1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var h Histogram
		if json.Unmarshal(data, &h) == nil {
			_ = h.Quantile(.99)
		}
	})
}

func TestBars(t *testing.T) {
	var h Histogram
	for i := range 90 {
		h.Record(time.Duration(i+1) * 10 * time.Microsecond)
	}
	h.Record(3 * time.Second)
	var got bytes.Buffer
	if err := h.WriteBars(&got); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(got.String(), "\n"), "\n")
	var first, last string
	var total int
	for i, line := range lines {
		fields := strings.Fields(line)
		n, err := strconv.Atoi(fields[len(fields)-1])
		if err != nil {
			t.Fatal(err)
		}
		total += n
		if i == 0 {
			first = line
		}
		last = line
	}
	if total != 91 || !strings.HasPrefix(first, " ≤ 10 µs  ") || !strings.HasPrefix(last, "   ≤ 5 s  ") {
		t.Errorf("%d values:\n%s", total, got.String())
	}
	for d, want := range map[time.Duration]string{0: "0 ns", 999: "999 ns", 1500: "1.50 µs", 99_960: "100 µs", 12_345_678: "12.3 ms", 2 * time.Second: "2.00 s"} {
		if got := Short(d); got != want {
			t.Errorf("%d ns is %q, want %q", d, got, want)
		}
	}
}
