package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
)

// printIsolation prints what an object was promised beside what is measured,
// and whatever else its status has as a tree.
func printIsolation(w io.Writer, indent string, isolation map[string]any) {
	fmt.Fprintf(w, "%sisolation:\n", indent)
	indent += "  "
	rest := maps.Clone(isolation)
	if promises, ok := isolation["promises"].([]any); ok {
		delete(rest, "promises")
		if len(promises) > 0 {
			fmt.Fprintf(w, "%spromises:\n", indent)
		}
		for _, p := range promises {
			fmt.Fprintf(w, "%s  %s\n", indent, promiseLine(p))
		}
	}
	reserved, some := isolation["reserved"].(float64)
	reservable, bounded := isolation["reservable"].(float64)
	if bounded {
		delete(rest, "reserved")
		delete(rest, "reservable")
		if some {
			fmt.Fprintf(w, "%sreserved: %.4f of %.4f CPUs\n", indent, reserved, reservable)
		}
	}
	if pressure, ok := isolation["pressure"].(map[string]any); ok {
		delete(rest, "pressure")
		for _, what := range slices.Sorted(maps.Keys(pressure)) {
			if p, ok := pressure[what].(map[string]any); ok {
				fmt.Fprintf(w, "%swaited for %s: %v %% of the last 10 s, %v in all\n", indent, what, p["some10"], p["some"])
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(rest)) {
		printTree(w, indent, key, rest[key])
	}
}

// promiseLine says in one line whether a promise is held.
func promiseLine(promise any) string {
	p, ok := promise.(map[string]any)
	if !ok {
		return fmt.Sprint(promise)
	}
	state := "held    "
	if held, _ := p["held"].(bool); !held {
		state = "NOT HELD"
	}
	line := fmt.Sprintf("%s  %v", state, p["what"])
	if detail, _ := p["detail"].(string); detail != "" {
		line += ": " + detail
	}
	return line
}
