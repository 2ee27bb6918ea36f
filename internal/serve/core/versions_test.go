package core

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestVersionsAreOrdered(t *testing.T) {
	want := []string{"", "1", "2", "9", "010", "11", "2026-08-01", "a", "v1.9", "v1.10", "v1.10-rc1", "v2"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, compareVersions)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// serving is a model as it is found, without a worker.
func serving(version string, ready bool, to Routing) *model {
	m := &model{Model: Model{Name: "m-" + version, ServedAs: "m", Version: version, Routing: to}}
	m.open.Store(ready)
	return m
}

func percent(n int) Routing { return Routing{Traffic: &n} }

func TestRequestsAreDivided(t *testing.T) {
	for name, test := range map[string]struct {
		versions []*model
		want     string // the shares of 100 requests, of the versions in order
	}{
		"the newest":               {[]*model{serving("1", true, Routing{}), serving("2", true, Routing{})}, "2:100"},
		"the newest is not ready":  {[]*model{serving("1", true, Routing{}), serving("2", false, Routing{})}, "1:100"},
		"a canary":                 {[]*model{serving("1", true, Routing{}), serving("2", true, percent(10))}, "1:90 2:10"},
		"a canary without request": {[]*model{serving("1", true, Routing{}), serving("2", true, percent(0))}, "1:100"},
		"a canary not ready":       {[]*model{serving("1", true, Routing{}), serving("2", false, percent(10))}, "1:100"},
		"two canaries":             {[]*model{serving("1", true, Routing{}), serving("2", true, percent(10)), serving("3", true, percent(20))}, "1:70 2:10 3:20"},
		"percentages alone":        {[]*model{serving("1", true, percent(10)), serving("2", true, percent(40))}, "1:20 2:80"},
		"a shadow":                 {[]*model{serving("1", true, Routing{}), serving("2", true, Routing{Shadow: true})}, "1:100"},
		"a shadow alone":           {[]*model{serving("2", true, Routing{Shadow: true})}, "2:100"},
		"more than all":            {[]*model{serving("1", true, Routing{}), serving("2", true, percent(100)), serving("3", true, percent(100))}, "2:50 3:50"},
	} {
		r := NewRegistry()
		for _, m := range test.versions {
			r.enter(m)
		}
		list := r.served["m"]
		counts := map[string]int{}
		for i := range 1000 {
			m := divide(list, newest(list), func(n int) int { return i * n / 1000 })
			counts[m.Version]++
		}
		var got []string
		for _, m := range test.versions {
			if n := counts[m.Version]; n > 0 {
				got = append(got, m.Version+":"+strconv.Itoa(n/10))
			}
		}
		if text := strings.Join(got, " "); text != test.want {
			t.Errorf("%s: got %s, want %s", name, text, test.want)
		}
	}
}
