package network

import (
	"math"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"
)

// acknowledgement is what a usual server answers.
func acknowledgement(t testing.TB, options ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	usual := []dhcpv4.Modifier{
		dhcpv4.WithMessageType(dhcpv4.MessageTypeAck),
		dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 77)),
		dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
		dhcpv4.WithLeaseTime(3600),
		dhcpv4.WithRouter(net.IPv4(192, 0, 2, 1), net.IPv4(192, 0, 2, 254)),
		dhcpv4.WithDNS(net.IPv4(192, 0, 2, 53)),
	}
	ack, err := dhcpv4.New(append(usual, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	return ack
}

func TestReadLease(t *testing.T) {
	usual := lease{
		address: netip.MustParsePrefix("192.0.2.77/24"), routes: []route{{gateway: netip.MustParseAddr("192.0.2.1")}},
		nameservers: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, valid: time.Hour, renew: 30 * time.Minute,
	}
	for name, c := range map[string]struct {
		options []dhcpv4.Modifier
		change  func(*lease)
	}{
		"usual": {nil, func(*lease) {}},
		"forever": {[]dhcpv4.Modifier{dhcpv4.WithLeaseTime(math.MaxUint32)}, func(l *lease) {
			l.valid, l.renew = math.MaxInt64, 24*time.Hour
		}},
		"renewal after the end": {[]dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionRenewTimeValue, []byte{0, 1, 0, 0}))}, func(*lease) {}},
		"classless routes replace the router": {[]dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(
			&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(198, 51, 100, 0), Mask: net.CIDRMask(24, 32)}, Router: net.IPv4(192, 0, 2, 9)},
			&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Router: net.IPv4(192, 0, 2, 8)},
		))}, func(l *lease) {
			l.routes = []route{
				{to: netip.MustParsePrefix("198.51.100.0/24"), gateway: netip.MustParseAddr("192.0.2.9")},
				{to: netip.MustParsePrefix("0.0.0.0/0"), gateway: netip.MustParseAddr("192.0.2.8")},
			}
		}},
		"names": {[]dhcpv4.Modifier{dhcpv4.WithDomainSearchList("a.example", "bad name\nnameserver 6.6.6.6")}, func(l *lease) {
			l.search = []string{"a.example"}
		}},
		"domain":         {[]dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptDomainName("site.example"))}, func(l *lease) { l.search = []string{"site.example"} }},
		"MTU":            {[]dhcpv4.Modifier{dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{5, 0xdc})}, func(l *lease) { l.mtu = 1500 }},
		"MTU of nothing": {[]dhcpv4.Modifier{dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{0, 68})}, func(*lease) {}},
		"time servers": {[]dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptNTPServers(net.IPv4(192, 0, 2, 123), net.IPv4zero))}, func(l *lease) {
			l.timeServers = []netip.Addr{netip.MustParseAddr("192.0.2.123")}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			want := usual
			c.change(&want)
			got, err := readLease(acknowledgement(t, c.options...))
			if err != nil {
				t.Fatal(err)
			}
			options := cmp.Options{cmp.AllowUnexported(lease{}, route{}), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}
			if diff := cmp.Diff(want, got, options); diff != "" {
				t.Errorf("lease differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadLeaseRefuses(t *testing.T) {
	for name, option := range map[string]dhcpv4.Modifier{
		"no address":     dhcpv4.WithYourIP(net.IPv4zero),
		"multicast":      dhcpv4.WithYourIP(net.IPv4(224, 0, 0, 1)),
		"loopback":       dhcpv4.WithYourIP(net.IPv4(127, 0, 0, 1)),
		"no mask":        dhcpv4.WithNetmask(net.CIDRMask(0, 32)),
		"mask with gaps": dhcpv4.WithNetmask(net.IPv4Mask(255, 0, 255, 0)),
		"a second":       dhcpv4.WithLeaseTime(1),
	} {
		if got, err := readLease(acknowledgement(t, option)); err == nil {
			t.Errorf("%s: got lease %+v, want an error", name, got)
		}
	}
}

func FuzzReadLease(f *testing.F) {
	f.Add(acknowledgement(f).ToBytes())
	f.Add(acknowledgement(f, dhcpv4.WithDomainSearchList("a.example"), dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(
		&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Router: net.IPv4(192, 0, 2, 8)}))).ToBytes())
	f.Add((&rfc1035label.Labels{Labels: []string{"x"}}).ToBytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		ack, err := dhcpv4.FromBytes(data)
		if err != nil {
			return
		}
		l, err := readLease(ack)
		if err != nil {
			return
		}
		if !l.address.IsValid() || l.renew <= 0 || l.renew > l.valid && l.valid != math.MaxInt64 {
			t.Errorf("accepted lease %+v", l)
		}
		if len(l.routes) > maxRoutes || len(l.nameservers) > maxServers || len(l.search) > maxSearch {
			t.Errorf("lease without bounds: %+v", l)
		}
	})
}
