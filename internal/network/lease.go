package network

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"oscine.dev/oscine/internal/pattern"
)

// Bounds on what a DHCP server can make a node remember.
const (
	maxServers = 8
	maxRoutes  = 32
	maxSearch  = 6
)

// lease is what a DHCP server granted, checked and bounded.
type lease struct {
	address     netip.Prefix
	routes      []route
	nameservers []netip.Addr
	timeServers []netip.Addr
	search      []string
	mtu         int           // 0: leave the link's
	valid       time.Duration // math.MaxInt64 means forever
	renew       time.Duration // T1 of RFC 2131, after which the server is asked again
}

var domainRE = pattern.New(`^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?$`)

// readLease takes a lease from an acknowledgement. Routes and names that make
// no sense are left out; an address that makes none is an error.
func readLease(ack *dhcpv4.DHCPv4) (lease, error) {
	address, ok := ipv4(ack.YourIPAddr)
	if !ok || address.IsUnspecified() || address.IsMulticast() || address.IsLoopback() {
		return lease{}, fmt.Errorf("DHCP server offers %v, which no node can have", ack.YourIPAddr)
	}
	ones, bits := ack.SubnetMask().Size()
	if bits != 32 || ones == 0 {
		return lease{}, fmt.Errorf("DHCP server offers %s with the subnet mask %v", address, ack.SubnetMask())
	}
	l := lease{address: netip.PrefixFrom(address, ones)}
	l.readTimes(ack)
	if l.valid < 10*time.Second {
		return lease{}, errors.New("DHCP server offers a lease of less than 10 s")
	}
	l.nameservers = addresses(ack.DNS())
	l.timeServers = addresses(ack.NTPServers())
	l.readRoutes(ack)
	l.readNames(ack)
	if mtu := ack.Options.Get(dhcpv4.OptionInterfaceMTU); len(mtu) == 2 {
		// Below 576 IPv4 need not work (RFC 791); a wrong value would cut the
		// node off for the lease's time.
		if v := int(mtu[0])<<8 | int(mtu[1]); v >= 576 {
			l.mtu = v
		}
	}
	return l, nil
}

func (l *lease) readTimes(ack *dhcpv4.DHCPv4) {
	l.valid = ack.IPAddressLeaseTime(0)
	if l.valid >= math.MaxUint32*time.Second {
		l.valid = math.MaxInt64
		l.renew = 24 * time.Hour // to hear of changes all the same
		return
	}
	l.renew = ack.IPAddressRenewalTime(l.valid / 2)
	if l.renew <= 0 || l.renew >= l.valid {
		l.renew = l.valid / 2
	}
}

// readRoutes prefers classless routes, which replace the router (RFC 3442).
func (l *lease) readRoutes(ack *dhcpv4.DHCPv4) {
	for _, r := range ack.ClasslessStaticRoute() {
		if r == nil || r.Dest == nil || len(l.routes) == maxRoutes {
			continue
		}
		to, ok := prefixOf(r.Dest)
		gateway, valid := ipv4(r.Router)
		if ok && to.IsValid() && valid {
			l.routes = append(l.routes, route{to: to.Masked(), gateway: gateway})
		}
	}
	if len(l.routes) > 0 {
		return
	}
	for _, gateway := range addresses(ack.Router()) {
		l.routes = append(l.routes, route{gateway: gateway})
		return // further ones are alternatives, and the kernel has no use for them
	}
}

func (l *lease) readNames(ack *dhcpv4.DHCPv4) {
	var names []string
	if labels := ack.DomainSearch(); labels != nil {
		names = labels.Labels
	}
	if len(names) == 0 {
		names = []string{ack.DomainName()}
	}
	for _, name := range names {
		if len(l.search) < maxSearch && domainRE.MatchString(name) {
			l.search = append(l.search, name)
		}
	}
}

// gateway is that of the default route, zero without one.
func (l *lease) gateway() netip.Addr {
	for _, r := range l.routes {
		if r.to.Bits() <= 0 {
			return r.gateway
		}
	}
	return netip.Addr{}
}

func addresses(ips []net.IP) []netip.Addr {
	var list []netip.Addr
	for _, ip := range ips {
		if a, ok := ipv4(ip); ok && !a.IsUnspecified() && !a.IsMulticast() && len(list) < maxServers {
			list = append(list, a)
		}
	}
	return list
}

func ipv4(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip.To4())
	return a, ok
}
