package object

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestQuantityRange(t *testing.T) {
	for text, want := range map[string]struct {
		value int64
		ok    bool
	}{
		"0": {0, true}, "1": {1, true}, "1Ki": {1024, true}, "64MiB": {64 << 20, true}, "64 MiB": {64 << 20, true}, "1GB": {1e9, true}, "-3": {-3, true}, "500m": {1, true}, "1e3": {1000, true}, "1E": {1e18, true}, "1Ei": {1 << 60, true}, "1e-18": {1, true},
		"9223372036854775806": {1<<63 - 2, true}, "9223372036854775808": {0, false}, "16Ei": {0, false}, "-16Ei": {0, false}, "9e18": {9e18, true}, "99e18": {0, false},
	} {
		q, err := MakeQuantity(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, ok := q.Value()
		if ok != want.ok || (ok && got != want.value) {
			t.Errorf("%s: got %d, %v, want %d, %v", text, got, ok, want.value, want.ok)
		}
	}
}

// outlandish are numbers that no machine has, and that take a careless parser
// minutes or all memory.
func outlandish() []string {
	return []string{
		"1e-60000000", "1e30000000", "1E-60000000", "-1e30000000", "1e999999999999999999999", "1e+99999999", "0.1e-19", "1e19",
		strings.Repeat("9", 1<<10), strings.Repeat("9", 1<<15), "0." + strings.Repeat("0", 1<<15) + "1", "0x" + strings.Repeat("f", 1<<15),
		"99999999999999999999h", strings.Repeat("1h", 1<<10), "2562047h47m16.854775807s", "1000000h", "-5s",
	}
}

// field is a number of a spec: its path in an error and the document around it.
type field struct {
	path     string
	document func(number string) any
}

// numbers finds every number, quantity and duration of a type.
func numbers(typ reflect.Type, path string, wrap func(any) any) []field {
	switch {
	case typ.Kind() == reflect.Pointer:
		return numbers(typ.Elem(), path, wrap)
	case typ == reflect.TypeFor[Quantity](), typ == reflect.TypeFor[Duration](), typ.Kind() == reflect.Int, typ.Kind() == reflect.Int64, typ.Kind() == reflect.Float64:
		return []field{{path, func(n string) any { return wrap(n) }}}
	case typ.Kind() == reflect.Slice:
		return numbers(typ.Elem(), path+"[0]", func(v any) any { return wrap([]any{v}) })
	case typ.Kind() == reflect.Map:
		return numbers(typ.Elem(), path+".2Mi", func(v any) any { return wrap(map[string]any{"2Mi": v}) })
	case typ.Kind() == reflect.Struct:
		var found []field
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			found = append(found, numbers(typ.Field(i).Type, path+"."+name, func(v any) any { return wrap(map[string]any{name: v}) })...)
		}
		return found
	}
	return nil
}

// Every number of every kind is refused at once where it is outlandish, and so
// is one that is stored.
func TestOutlandishNumbersAreRefusedAtOnce(t *testing.T) {
	const patience = 2 * time.Second // a careless parser takes minutes
	tried := 0
	for _, row := range Kinds() {
		spec := reflect.TypeOf(row.New()).Elem()
		specField, _ := spec.FieldByName("Spec")
		for _, f := range numbers(specField.Type, "spec", func(v any) any { return v }) {
			for _, number := range outlandish() {
				tried++
				document, err := json.Marshal(map[string]any{"apiVersion": APIVersion, "kind": row.Kind, "metadata": Metadata{Name: "x"}, "spec": f.document(number)})
				if err != nil {
					t.Fatal(err)
				}
				text := string(document)
				if strings.HasPrefix(number, "0x") || strings.Trim(number, "-0123456789.eE+") == "" {
					text = strings.Replace(text, `"`+number+`"`, number, 1) // a bare number in YAML
				}
				began := time.Now()
				_, err = Kinds().Parse(strings.NewReader(text))
				if took := time.Since(began); took > patience {
					t.Errorf("%s %s: %.40s took %v", row.Kind, f.path, number, took)
				}
				var mistakes Errors
				if !errors.As(err, &mistakes) || !mistakes.at(f.path) {
					t.Errorf("%s %s: %.40s was not refused: %v", row.Kind, f.path, number, err)
				}
				if err != nil && len(err.Error()) > 64<<10 {
					t.Errorf("%s %s: an error of %d bytes", row.Kind, f.path, len(err.Error()))
				}
			}
		}
	}
	if tried < 100 {
		t.Errorf("tried %d numbers: are the fields found?", tried)
	}
}

// at reports whether there is a mistake at a path or right above it, such as
// that of a range.
func (e Errors) at(path string) bool {
	for _, mistake := range e {
		if mistake.Path == path || strings.HasPrefix(path, mistake.Path+".") && mistake.Path != "spec" {
			return true
		}
	}
	return false
}

// Errors repeat nothing that a terminal would obey, and little of a long text.
func TestErrorsAreFitToPrint(t *testing.T) {
	for _, text := range []string{
		"kind: \"\\e[2J\\a\"", "apiVersion: \"\\e]0;x\\a\"\nkind: Workload", "apiVersion: oscine.dev/v1\nkind: Workload\n\"\\e[31m\": 1",
		"apiVersion: oscine.dev/v1\nkind: Workload\nspec: {image: \"" + strings.Repeat("A", 1<<19) + "\", user: !x \"\\e[1m\"}",
		"\"" + strings.Repeat("k", 1<<19) + "\": 1\napiVersion: oscine.dev/v1\nkind: Model",
		"kind: " + strings.Repeat("W", 1<<19),
	} {
		_, err := Kinds().Parse(strings.NewReader(text))
		if err == nil || strings.ContainsAny(err.Error(), "\x1b\a") || len(err.Error()) > 32<<10 {
			t.Errorf("%.60q: got an error of %d bytes: %.200q", text, len(err.Error()), err)
		}
	}
}

// FuzzNumbers reads any text as a quantity and as a duration: quickly, without
// a panic, and what was read is written the same and read again.
func FuzzNumbers(f *testing.F) {
	for _, seed := range append(outlandish(), "500m", "1.5Gi", "1e3", "-1", "1h30m", ".5", "+1") {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		began := time.Now()
		if q, err := MakeQuantity(text); err == nil {
			again, err := MakeQuantity(q.String())
			if err != nil || again != q {
				t.Errorf("%q: read again got %v, %v", text, again, err)
			}
			units, fits := q.Value()
			milli, fitsMilli := q.MilliValue()
			if fits && fitsMilli && (units < milli/1000 || (units > 0) != (milli > 0)) {
				t.Errorf("%q: %d units, %d thousandths", text, units, milli)
			}
		}
		var d Duration
		if d.UnmarshalText([]byte(text)) == nil {
			var again Duration
			if err := again.UnmarshalText([]byte(d.String())); err != nil || again != d {
				t.Errorf("%q: read again got %v, %v", text, again, err)
			}
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%.40q took %v", text, took)
		}
	})
}
