package place

import (
	"fmt"
	"strings"
)

// Failure is one constraint of a request that the machine cannot satisfy.
type Failure struct {
	Constraint string `json:"constraint,omitempty"` // such as "cpu", "memory" or `device "gpu"`
	Problem    string `json:"problem,omitempty"`    // what is asked for and what there is
	Remedy     string `json:"remedy,omitempty"`     // what would satisfy it
}

// Unsatisfied is the refusal of a request: every constraint that fails, each
// with what would satisfy it. Nothing has been changed.
type Unsatisfied struct {
	Request  string    `json:"request,omitempty"`
	Machine  string    `json:"machine,omitempty"`
	Failures []Failure `json:"failures,omitempty"`
}

// Error lists the failing constraints on one line.
func (u *Unsatisfied) Error() string {
	parts := make([]string, len(u.Failures))
	for i, f := range u.Failures {
		parts[i] = fmt.Sprintf("%s: %s (%s)", f.Constraint, f.Problem, f.Remedy)
	}
	return fmt.Sprintf("%q does not fit %s: %s", u.Request, machineName(u.Machine), strings.Join(parts, "; "))
}

func machineName(name string) string {
	if name == "" {
		return "this machine"
	}
	return name
}
