package network

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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
