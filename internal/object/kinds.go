package object

import (
	"fmt"
	"strings"
)

// Definition is what the product knows of a kind beside its Go type. Adding a
// kind is a file with its type and its Definition, and a line in Kinds.
type Definition struct {
	Kind Kind
	// New returns an empty object for decoding.
	New func() Object
	// NewStatus returns an empty status for decoding; nil for a kind that no
	// node reports.
	NewStatus func() Status
	// Columns are what oscine get shows of the kind alone, beside what it shows
	// of all kinds.
	Columns []Column
	// Plural and Aliases are further words for the kind on the command line,
	// in lower case. "" stands for the kind's name with an s.
	Plural  string
	Aliases []string
	// Confidential says that no message repeats what is written in an object
	// of the kind.
	Confidential bool
	// Passive says that nothing runs for an object of the kind.
	Passive bool
	// NotApplied says why a node refuses to store objects of the kind, and
	// what to do instead, as a clause. "" for the kinds that a node stores and runs.
	NotApplied string
}

// Stored reports whether a node keeps objects of the kind.
func (d *Definition) Stored() bool { return d.NotApplied == "" }

// Word returns the kind's name on the command line, such as "workload".
func (d *Definition) Word() string { return strings.ToLower(string(d.Kind)) }

func (d *Definition) plural() string {
	if d.Plural != "" {
		return d.Plural
	}
	return d.Word() + "s"
}

// Table holds one row for each kind.
type Table []Definition

// Kinds returns the table of the kinds that this release knows.
func Kinds() Table {
	return Table{
		machineKind(),
		workloadKind(),
		modelKind(),
		secretKind(),
	}
}

// Find returns the row of a kind.
func (t Table) Find(kind Kind) (*Definition, bool) {
	for i := range t {
		if t[i].Kind == kind {
			return &t[i], true
		}
	}
	return nil, false
}

// Stored returns the rows of the kinds that a node keeps.
func (t Table) Stored() Table {
	var stored Table
	for _, d := range t {
		if d.Stored() {
			stored = append(stored, d)
		}
	}
	return stored
}

// ByWord returns the row of the kind that a word of the command line names, in
// any case: "workload", "Workloads", "wl".
func (t Table) ByWord(word string) (*Definition, bool) {
	word = strings.ToLower(word)
	for i := range t {
		d := &t[i]
		if word == d.Word() || word == d.plural() {
			return d, true
		}
		for _, alias := range d.Aliases {
			if word == alias {
				return d, true
			}
		}
	}
	return nil, false
}

// Names returns the kinds as a sentence lists them: "Workload or Model".
func (t Table) Names() string { return t.list(func(d *Definition) string { return string(d.Kind) }) }

// Words returns the kinds as the command line names them: "workload or model".
func (t Table) Words() string { return t.list((*Definition).Word) }

func (t Table) list(name func(*Definition) string) string {
	var b strings.Builder
	for i := range t {
		switch {
		case i > 0 && i == len(t)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(name(&t[i]))
	}
	return b.String()
}

// CheckKind returns an error that lists the stored kinds unless kind is one.
func (t Table) CheckKind(kind Kind) error {
	if d, ok := t.Find(kind); !ok || !d.Stored() {
		return fmt.Errorf("no kind is called %s: use %s", quote(string(kind)), t.Stored().Names())
	}
	return nil
}

// ParseKey reads what Key.String writes.
func (t Table) ParseKey(text string) (Key, error) {
	kind, name, ok := strings.Cut(text, "/")
	if !ok {
		return Key{}, fmt.Errorf("%s is not written Kind/name", quote(text))
	}
	if err := t.CheckKind(Kind(kind)); err != nil {
		return Key{}, err
	}
	if err := CheckName(name); err != nil {
		return Key{}, fmt.Errorf("the name of a %s %w", kind, err)
	}
	return Key{Kind(kind), name}, nil
}

// ParseID reads what Key.ID writes, also of an object's instance. It fails for what is
// no object's, such as the cgroup of another program.
func (t Table) ParseID(id string) (Key, error) {
	key, _, err := t.ParseInstance(id)
	return key, err
}

// ParseInstance is ParseID that tells which instance of the object it is, from 0.
func (t Table) ParseInstance(id string) (of Key, i int, err error) {
	word, name, ok := strings.Cut(id, "-")
	if ok && validName(name) {
		key, i := (Key{Kind(word), name}).Instance()
		word = string(key.Kind)
		for k := range t {
			if t[k].Stored() && t[k].Word() == word && (i == 0 || t[k].Kind == KindModel) {
				return Key{t[k].Kind, name}, i, nil
			}
		}
	}
	return Key{}, 0, fmt.Errorf("no object is called %s", quote(id))
}
