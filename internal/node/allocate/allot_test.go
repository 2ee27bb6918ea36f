package allocate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/place"
)

// told is an outcome in words, to be compared.
func told(outcomes []Outcome) []string {
	var lines []string
	for _, o := range outcomes {
		line := "no placement"
		if o.Placement != nil {
			line = o.Placement.Request.Name + " on " + place.FormatCPUs(o.Placement.CPUs)
		}
		var names []string
		for name := range o.Displaced {
			names = append(names, name)
		}
		slices.Sort(names)
		lines = append(lines, fmt.Sprintf("%s, displaces %v, %v", line, names, o.Err))
	}
	return lines
}

// held are the placements of a placer in words.
func (p *Placer) held() []string {
	var lines []string
	for _, held := range p.state.Load().Placements() {
		lines = append(lines, held.Request.Name+" on "+place.FormatCPUs(held.CPUs))
	}
	slices.Sort(lines)
	return lines
}

// Whatever a preview says, Allot does right after, and the preview itself
// changes nothing.
func TestPreviewTellsTheTruth(t *testing.T) {
	classes := []string{"batch", "interactive", "realtime"}
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		p, s := fourCPUs(t)
		for range 6 {
			var desired []Desired
			for range 1 + random.IntN(3) {
				name := string(rune('a' + random.IntN(5)))
				var obj object.Object
				switch random.IntN(4) {
				case 0:
					obj = s.member(t, "g"+name, fmt.Sprint(1+random.IntN(2)))
				default:
					obj = s.exclusive(t, name, classes[random.IntN(3)], fmt.Sprint(1+random.IntN(3)))
				}
				if !slices.ContainsFunc(desired, func(w Desired) bool { return w.Object.Key() == obj.Key() }) {
					desired = append(desired, Desired{obj, random.IntN(2) == 0})
				}
			}
			displace := random.IntN(2) == 0
			before, stored := p.held(), len(s.placed)
			preview := told(p.Preview(t.Context(), s, desired, displace))
			if diff := cmp.Diff(before, p.held()); diff != "" || len(s.placed) != stored {
				t.Fatalf("seed %d: a preview changed what is held (-before +after):\n%s", seed, diff)
			}
			if diff := cmp.Diff(preview, told(p.Allot(t.Context(), s, desired, displace))); diff != "" {
				t.Fatalf("seed %d (-preview +done):\n%s", seed, diff)
			}
			if random.IntN(3) == 0 {
				if _, err := p.Yield(s, desired[0].Object); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// Batch work gives way without a word; other work only where the caller says so,
// and a refusal names whom it would take.
func TestDisplacingAsks(t *testing.T) {
	for _, c := range []struct {
		class, quick string
		asks         bool
	}{
		{"batch", "interactive", false}, {"batch", "realtime", false}, {"interactive", "realtime", true},
	} {
		p, s := fourCPUs(t)
		p.mustPlace(t, s, s.exclusive(t, "slow", c.class, "3"))
		desired := []Desired{{s.exclusive(t, "quick", c.quick, "2"), true}}
		first := p.Allot(t.Context(), s, desired, false)[0]
		if c.asks {
			if first.Placement != nil || first.Err == nil || !strings.Contains(first.Err.Error(), "stopping workload-slow of class interactive (apply it again with --displace)") {
				t.Errorf("%s before %s: %+v", c.quick, c.class, first)
			}
			if _, displaced, err := p.Place(t.Context(), s, desired[0].Object); !Unsatisfied(err) || len(displaced) != 0 {
				t.Errorf("placed by its controller: %v, displaced %v", err, displaced)
			}
			first = p.Allot(t.Context(), s, desired, true)[0]
		}
		if first.Placement == nil || first.Displaced["workload-slow"] == nil {
			t.Errorf("%s before %s: %+v", c.quick, c.class, first)
		}
	}
}

// Work that a later object of the same call displaces has no place in the end.
func TestLastOutcomeCounts(t *testing.T) {
	p, s := fourCPUs(t)
	got := told(p.Preview(t.Context(), s, []Desired{{s.exclusive(t, "a", "batch", "3"), true}, {s.exclusive(t, "b", "interactive", "3"), true}}, false))
	want := []string{
		"no placement, displaces [], workload-b of class interactive needs its place",
		"workload-b on 1-3, displaces [workload-a], <nil>",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
