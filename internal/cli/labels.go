package cli

import (
	"fmt"
	"strings"

	"oscine.dev/oscine/internal/api/oscinepb"
)

// labelSelector chooses objects by their labels: every condition holds.
type labelSelector []labelCondition

type labelCondition struct {
	name, value  string
	negated, any bool // any value
}

const labelHelp = "only objects with these labels: name=value, name!=value or name, separated by commas"

// parseLabels reads name=value, name!=value and name, separated by commas. An
// empty text chooses all.
func parseLabels(text string) (labelSelector, error) {
	var s labelSelector
	if text == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		name, value, valued := strings.Cut(strings.TrimSpace(part), "=")
		c := labelCondition{value: strings.TrimPrefix(value, "="), any: !valued}
		c.name, c.negated = strings.CutSuffix(name, "!")
		if c.name = strings.TrimSpace(c.name); c.name == "" || c.negated && c.any {
			return nil, usageError{fmt.Errorf("--selector %q: write name=value, name!=value or name, separated by commas", text)}
		}
		s = append(s, c)
	}
	return s, nil
}

// chooses reports whether an object has the labels.
func (s labelSelector) chooses(obj *oscinepb.Object) bool {
	labels := obj.GetManifest().GetFields()["metadata"].GetStructValue().GetFields()["labels"].GetStructValue().GetFields()
	for _, c := range s {
		value, there := labels[c.name]
		holds := there && (c.any || value.GetStringValue() == c.value)
		if holds == c.negated {
			return false
		}
	}
	return true
}

// choose returns the objects that have the labels.
func (s labelSelector) choose(objects []*oscinepb.Object) []*oscinepb.Object {
	var chosen []*oscinepb.Object
	for _, obj := range objects {
		if s.chooses(obj) {
			chosen = append(chosen, obj)
		}
	}
	return chosen
}
