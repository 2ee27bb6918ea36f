package hardware

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
)

//go:embed identities.txt
var identityText string

// identity is one row of identities.txt.
type identity struct {
	bus, match, class string
	kind              string
	vendor, model     string
	memory            Bytes
	drivers           []string
	nodes             []string
	source            string
}

// parseIdentities reads the table. It stops at the first row that is wrong.
func parseIdentities(text string) ([]identity, error) {
	var rows []identity
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		cells := strings.Split(line, "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if len(cells) != 8 {
			return nil, fmt.Errorf("identities.txt:%d: has %d columns, not 8", number, len(cells))
		}
		row := identity{kind: cells[1], vendor: cells[2], model: cells[3], drivers: strings.Fields(cells[5]), nodes: strings.Fields(cells[6]), source: cells[7]}
		row.bus, row.match, _ = strings.Cut(cells[0], " ")
		row.match, row.class, _ = strings.Cut(row.match, "/")
		if cells[4] != "" {
			gib, err := strconv.ParseUint(strings.TrimSuffix(cells[4], "Gi"), 10, 20)
			if err != nil {
				return nil, fmt.Errorf("identities.txt:%d: memory %q is not a number of Gi", number, cells[4])
			}
			row.memory = Bytes(gib) << 30
		}
		if row.kind == "" || row.match == "" || row.source == "" {
			return nil, fmt.Errorf("identities.txt:%d: match, kind and source must be there", number)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// identities finds rows without reading the table again: exact ones by their
// match, the rest in order.
type identities struct {
	exact    map[string]*identity // "pci 10de:20b0"
	patterns []*identity
}

func newIdentities(text string) (*identities, error) {
	rows, err := parseIdentities(text)
	if err != nil {
		return nil, err
	}
	t := &identities{exact: make(map[string]*identity, len(rows))}
	for i := range rows {
		r := &rows[i]
		if strings.Contains(r.match, "*") || r.class != "" {
			t.patterns = append(t.patterns, r)
			continue
		}
		if key := r.bus + " " + r.match; t.exact[key] == nil {
			t.exact[key] = r
		}
	}
	return t, nil
}

// find returns the row of an identity, nil where the table has none. class is
// a PCI class of four digits, empty elsewhere.
func (t *identities) find(bus, id, class string) *identity {
	if r := t.exact[bus+" "+id]; r != nil {
		return r
	}
	for _, r := range t.patterns {
		if r.bus == bus && (r.class == "" || r.class == class) && matches(r.match, id) {
			return r
		}
	}
	return nil
}

// matches compares "10de:*", "1da3:106*" or "*:*" with an identity.
func matches(pattern, id string) bool {
	for _, half := range [2]struct{ p, i string }{
		{before(pattern), before(id)}, {after(pattern), after(id)},
	} {
		if prefix, open := strings.CutSuffix(half.p, "*"); open && strings.HasPrefix(half.i, prefix) || half.p == half.i {
			continue
		}
		return false
	}
	return true
}

func before(id string) string { head, _, _ := strings.Cut(id, ":"); return head }
func after(id string) string  { _, tail, _ := strings.Cut(id, ":"); return tail }
