package licence

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
)

// Licence is the terms of one component. The zero value says that nothing is
// known.
type Licence struct {
	// Expression is an SPDX licence expression (SPDX 2.3, annex D), or empty.
	Expression string
	// Texts holds what stands behind each LicenseRef of the expression.
	Texts map[string]Text
}

// Text is terms that are not on SPDX's list of licences.
type Text struct {
	Name string `json:"name"` // as its source calls it
	Text string `json:"text"`
}

// operator joins the terms of a compound expression.
type operator string

const (
	and operator = " AND "
	or  operator = " OR "
)

// terms are one licence with its exception, or several that an operator joins.
type terms struct {
	id   string // SPDX: simple expression, or one WITH an exception; "" where parts counts
	op   operator
	part []terms
	text *Text // of a LicenseRef
}

// join makes one of several, each different one once and in order of appearance.
func join(op operator, all ...terms) terms {
	var out terms
	out.op = op
	seen := map[string]bool{}
	for _, t := range all {
		parts := []terms{t}
		if t.id == "" && t.op == op {
			parts = t.part
		}
		for _, p := range parts {
			if s := p.String(); s != "" && !seen[s] {
				seen[s] = true
				out.part = append(out.part, p)
			}
		}
	}
	if len(out.part) == 1 {
		return out.part[0]
	}
	return out
}

func (t terms) String() string {
	if t.id != "" {
		return t.id
	}
	var all []string
	for _, p := range t.part {
		s := p.String()
		if len(p.part) > 1 {
			s = "(" + s + ")"
		}
		all = append(all, s)
	}
	return strings.Join(all, string(t.op))
}

// reference is terms that only their text describes.
func reference(name, text string) terms {
	sum := sha256.Sum256([]byte(text))
	return terms{id: "LicenseRef-sha256-" + hex.EncodeToString(sum[:8]), text: &Text{Name: name, Text: text}}
}

func (t terms) licence() Licence {
	l := Licence{Expression: t.String()}
	t.collect(&l)
	return l
}

func (t terms) collect(l *Licence) {
	if t.text != nil {
		if l.Texts == nil {
			l.Texts = map[string]Text{}
		}
		l.Texts[t.id] = *t.text
	}
	for _, p := range t.part {
		p.collect(l)
	}
}

// References returns the names of the texts in order.
func (l Licence) References() []string { return slices.Sorted(maps.Keys(l.Texts)) }
