package network

import (
	"net/netip"
	"strings"
	"testing"
)

func prefixes(texts ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, t := range texts {
		ps = append(ps, netip.MustParsePrefix(t))
	}
	return ps
}

func TestChooseSubnet(t *testing.T) {
	for _, c := range []struct {
		taken []netip.Prefix
		want  string
	}{
		{nil, "10.213.0.0/20"},
		{prefixes("0.0.0.0/0"), "10.213.0.0/20"},
		{prefixes("10.213.3.0/24"), "10.213.16.0/20"},
		{prefixes("10.0.0.0/8"), "172.16.0.0/20"},
		{prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/17"), "192.168.128.0/20"},
	} {
		got, err := chooseSubnet(c.taken)
		if err != nil || got.String() != c.want {
			t.Errorf("chooseSubnet(%v): got %s, %v, want %s", c.taken, got, err, c.want)
		}
	}
	if _, err := chooseSubnet(prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")); err == nil {
		t.Error("chooseSubnet with all taken: got no error")
	}
}

func TestAllocateIsStableAndNeverTwice(t *testing.T) {
	subnet := netip.MustParsePrefix("10.213.0.0/29")
	used := map[netip.Addr]bool{}
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		first, err := allocate(subnet, id, used)
		if err != nil {
			t.Fatal(err)
		}
		if second, _ := allocate(subnet, id, used); second != first {
			t.Errorf("allocate(%s): got %s, then %s", id, first, second)
		}
		last := first.As4()[3]
		if used[first] || last < 2 || last > 6 {
			t.Errorf("allocate(%s): got %s, in use or reserved", id, first)
		}
		used[first] = true
	}
	if _, err := allocate(subnet, "f", used); err == nil {
		t.Error("allocate from a full subnet: got no error")
	}
}

func TestListeners(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 4243 1 0000000000000000 100 0 0 10 0
 short line
`
	got := listeners(strings.NewReader(table), "tcp", 8080)
	if len(got) != 1 || got[0] != "4242" {
		t.Errorf("listeners of 8080: got %v, want the listening socket 4242", got)
	}
}
