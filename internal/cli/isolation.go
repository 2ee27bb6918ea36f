package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"oscine.dev/oscine/internal/object"
)

// printIsolation prints what an object was promised beside what is measured,
// and whatever else was measured as a tree.
func printIsolation(w io.Writer, indent string, st *object.IsolationStatus) error {
	fmt.Fprintf(w, "%sisolation:\n", indent)
	indent += "  "
	if len(st.Promises) > 0 {
		fmt.Fprintf(w, "%spromises:\n", indent)
	}
	for _, p := range st.Promises {
		fmt.Fprintf(w, "%s  %s\n", indent, promiseLine(p))
	}
	if st.Reserved > 0 {
		fmt.Fprintf(w, "%sreserved: %.4f of %.4f CPUs\n", indent, st.Reserved, st.Reservable)
	}
	for _, what := range slices.Sorted(maps.Keys(st.Pressure)) {
		p := st.Pressure[what]
		fmt.Fprintf(w, "%swaited for %s: %v %% of the last 10 s, %v in all\n", indent, what, p.Some10, p.Some)
	}
	rest := *st
	rest.Promises, rest.Pressure, rest.Reserved, rest.Reservable = nil, nil, 0, 0
	raw, err := json.Marshal(rest)
	if err != nil {
		return err
	}
	return printJSONTree(w, indent, "", raw)
}

// promiseLine says in one line whether a promise is held.
func promiseLine(p object.Promise) string {
	state := "held    "
	if !p.Held {
		state = "NOT HELD"
	}
	line := state + "  " + p.What
	if p.Detail != "" {
		line += ": " + p.Detail
	}
	return line
}
