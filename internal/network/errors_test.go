package network

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/object"
)

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		err         error
		unsupported bool
		want        string
	}{
		{unix.EOPNOTSUPP, true, "write rules: this kernel has no nf_tables (operation not supported); see oscine doctor for how to get it"},
		{fmt.Errorf("netlink: %w", unix.EPROTONOSUPPORT), true, "this kernel has no nf_tables"},
		{unix.ENOENT, true, "this kernel has no nf_tables"},
		{unix.EPERM, false, "start oscined as root"},
		{unix.EEXIST, false, "write rules: file exists"},
	} {
		err := explain(c.err, "nf_tables", "write rules")
		var unsupported *UnsupportedError
		if errors.As(err, &unsupported) != c.unsupported || !strings.Contains(err.Error(), c.want) || !errors.Is(err, c.err) {
			t.Errorf("explain(%v): got %v, want %q", c.err, err, c.want)
		}
	}
	if err := explain(nil, "x", "y"); err != nil {
		t.Errorf("explain(nil): got %v", err)
	}
	if err := explain(unix.EPERM, "x", "y"); !errors.Is(err, ErrPermission) {
		t.Errorf("explain(EPERM): got %v, want ErrPermission", err)
	}
}

func FuzzParseAlias(f *testing.F) {
	f.Add("oscine workload-web 10.213.0.5")
	f.Add("oscine  ")
	f.Fuzz(func(t *testing.T, alias string) {
		id, addr, ok := parseAlias(alias)
		if ok && aliasPrefix+id+" "+addr.String() != alias {
			again, same, fine := parseAlias(aliasPrefix + id + " " + addr.String())
			if !fine || again != id || same != addr {
				t.Errorf("%q was read as %s %s, which does not read back", alias, id, addr)
			}
		}
	})
}

// Objects with names of every length can be attached: their IDs are accepted,
// and the kernel takes the names and the alias that are made of them.
func TestNamesOfEveryLengthFit(t *testing.T) {
	const (
		linkMax  = 15  // IFNAMSIZ without its 0
		aliasMax = 255 // IFALIASZ without its 0
		fileMax  = 255 // NAME_MAX
	)
	for _, row := range object.Kinds().Stored() {
		for n := 1; n <= object.MaxName; n++ {
			id := object.Key{Kind: row.Kind, Name: strings.Repeat("n", n)}.ID()
			alias := aliasPrefix + id + " 255.255.255.255"
			if !idRE.MatchString(id) || len(vethName(id)) > linkMax || len(alias) > aliasMax || len(id) > fileMax {
				t.Errorf("%q does not fit: link %q, alias %q", id, vethName(id), alias)
			}
			if got, _, ok := parseAlias(alias); !ok || got != id {
				t.Errorf("parseAlias(%q): got %q, %v", alias, got, ok)
			}
		}
	}
}
