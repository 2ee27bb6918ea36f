package explain

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strings"

	"oscine.dev/oscine/internal/object"
)

var (
	durationRE = regexp.MustCompile(`\b(\d+h)?(\d+m)?(\d[\d.]*)(h|m|s|ms|µs|ns)\b`)
	// relativeRE matches a bound that another field of the same object sets, which
	// differs from object to object.
	relativeRE = regexp.MustCompile(`^at (most|least) [a-z]`)
	isNotRE    = regexp.MustCompile(`^"\?" is not (an? .*)$`)
)

// bounds returns what the object's own check demands of a field: v, which is a
// part of obj, is given values that hardly any field allows, and the mistake
// that the check finds at its path is the rule. So the text cannot differ from
// what a node does.
func bounds(kinds object.Table, obj object.Object, v reflect.Value, path string) string {
	if !v.CanSet() || v.Kind() == reflect.Map || v.Kind() == reflect.Bool {
		return ""
	}
	before := reflect.ValueOf(v.Interface())
	defer v.Set(before)
	for i, value := range probes(v) {
		v.Set(value)
		rule := ruleAt(kinds.Check(obj), strings.ReplaceAll(path, "[]", "[0]"))
		// A bound on one side only may be another field's value, so just the
		// first value shows one.
		if rule != "" && (i == 0 || strings.HasPrefix(rule, "from ")) {
			return rule
		}
	}
	return ""
}

func probes(v reflect.Value) []reflect.Value {
	var values []any
	switch v.Interface().(type) {
	case object.Quantity:
		q, err := object.MakeQuantity("-1")
		if err != nil {
			return nil
		}
		values = []any{q}
	case object.Duration:
		values = []any{object.Duration(1), object.Duration(math.MaxInt64)}
	default:
		switch v.Kind() {
		case reflect.String:
			values = []any{"?"}
		case reflect.Int, reflect.Int32, reflect.Int64:
			values = []any{-1, math.MaxInt32}
		}
	}
	var probes []reflect.Value
	for _, value := range values {
		probes = append(probes, reflect.ValueOf(value).Convert(v.Type()))
	}
	return probes
}

// ruleAt is the rule that the mistake at a path states.
func ruleAt(err error, path string) string {
	var mistakes object.Errors
	if !errors.As(err, &mistakes) {
		return ""
	}
	for _, m := range mistakes {
		if m.Path != path {
			continue
		}
		if found := isNotRE.FindStringSubmatch(m.Reason); found != nil {
			return found[1]
		}
		rule, is := strings.CutPrefix(m.Reason, "must ")
		if !is {
			continue
		}
		rule, _, _ = strings.Cut(rule, ", got ")
		if rule, is = strings.CutPrefix(rule, "be "); !is {
			rule = "must " + rule
		}
		if relativeRE.MatchString(rule) {
			continue
		}
		return short(rule)
	}
	return ""
}

// short leaves out the parts of durations that are zero: 24h0m0s is 24h.
func short(text string) string {
	return durationRE.ReplaceAllStringFunc(text, func(d string) string {
		if strings.HasSuffix(d, "m0s") {
			d = strings.TrimSuffix(d, "0s")
		}
		if strings.HasSuffix(d, "h0m") {
			d = strings.TrimSuffix(d, "0m")
		}
		return d
	})
}

func shown(v reflect.Value) string { return fmt.Sprint(v.Interface()) }
