package network

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// keepLease asks for a lease, renews it and asks again when it ends, until ctx
// does.
func (n *Node) keepLease(ctx context.Context, l *link, seen netlink.Link) {
	name, failures := seen.Attrs().Name, 0
	for delay := time.Second; ctx.Err() == nil; delay = min(2*delay, time.Minute) {
		granted, settings, err := n.request(ctx, name)
		if err == nil {
			err = n.take(l, seen, settings)
		}
		if err == nil {
			n.log.Info("DHCP lease", "link", name, "address", settings.address, "gateway", settings.gateway(), "renew", settings.renew)
			n.hold(ctx, l, seen, granted, settings)
			delay, failures = time.Second/2, 0
			continue
		}
		if ctx.Err() != nil {
			return
		}
		err = fmt.Errorf("no DHCP lease on %s yet: %w", name, err)
		if failures == 0 { // a node may be without a server for weeks: once is enough
			n.log.Warn("ask for a DHCP lease", "link", name, "error", err)
		}
		failures++
		n.change(l, func() { l.state.Err = err })
		pause(ctx, delay+rand.N(delay)) // so that a rack that comes back asks at many times
	}
}

// hold renews a lease until it ends, and then takes its address away.
func (n *Node) hold(ctx context.Context, l *link, seen netlink.Link, granted *nclient4.Lease, settings lease) {
	began := time.Now()
	for wait := settings.renew; ; {
		if !pause(ctx, wait) {
			return
		}
		renewed, fresh, err := n.renew(ctx, seen.Attrs().Name, granted)
		if err == nil {
			err = n.take(l, seen, fresh)
		}
		if err == nil {
			granted, settings, began, wait = renewed, fresh, time.Now(), fresh.renew
			continue
		}
		if ctx.Err() != nil {
			return
		}
		left := settings.valid - time.Since(began)
		var refused *nclient4.ErrNak
		if left <= 0 || errors.As(err, &refused) {
			n.log.Warn("DHCP lease ended", "link", seen.Attrs().Name, "error", err)
			n.release(l, seen)
			return
		}
		n.log.Warn("renew DHCP lease", "link", seen.Attrs().Name, "error", err, "left", left)
		wait = min(max(left/2, 5*time.Second), max(left, time.Second), time.Hour) // RFC 2131, 4.4.5: half of what remains
	}
}

// take makes the node use a lease.
func (n *Node) take(l *link, seen netlink.Link, s lease) error {
	if s.mtu != 0 && l.config.MTU == 0 {
		if err := netlink.LinkSetMTU(seen, s.mtu); err != nil {
			n.log.Warn("set MTU from DHCP", "link", seen.Attrs().Name, "mtu", s.mtu, "error", err)
		}
	}
	addr := ipv4Addr(s.address.Addr(), s.address.Bits())
	expires := time.Time{}
	if s.valid != math.MaxInt64 {
		// The kernel takes the address away at the end even if the daemon died.
		addr.ValidLft = int(s.valid / time.Second)
		addr.PreferedLft = addr.ValidLft
		expires = time.Now().Add(s.valid)
	}
	if err := netlink.AddrReplace(seen, addr); err != nil {
		return fmt.Errorf("set address %s of %s: %w", s.address, seen.Attrs().Name, err)
	}
	if err := keepOnly(seen, []netip.Prefix{s.address}); err != nil {
		return err
	}
	for _, r := range s.routes {
		if err := setRoute(seen, r, []netip.Prefix{s.address}, unix.RTPROT_DHCP); err != nil {
			return err
		}
	}
	if err := dropRoutes(seen, s.routes, unix.RTPROT_DHCP); err != nil {
		return err
	}
	if err := setConfigured(seen, l.config, []netip.Prefix{s.address}); err != nil {
		return err
	}
	n.change(l, func() {
		l.lease = s
		l.state.Addresses, l.state.Gateway = []netip.Prefix{s.address}, s.gateway()
		l.state.Expires, l.state.Err = expires, nil
	})
	return nil
}

// dropRoutes removes routes that an earlier lease or configuration has set and
// that are not in wanted.
func dropRoutes(seen netlink.Link, wanted []route, protocol netlink.RouteProtocol) error {
	filter := &netlink.Route{LinkIndex: seen.Attrs().Index, Protocol: protocol}
	present, err := netlink.RouteListFiltered(netlink.FAMILY_V4, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("list routes of %s: %w", seen.Attrs().Name, err)
	}
	for _, p := range present {
		if wantsRoute(wanted, p) {
			continue
		}
		if err := netlink.RouteDel(&p); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route %s: %w", p, err)
		}
	}
	return nil
}

func wantsRoute(wanted []route, present netlink.Route) bool {
	to, _ := prefixOf(present.Dst)
	gateway, _ := ipv4(present.Gw)
	for _, w := range wanted {
		sameEnd := w.to == to || (w.to.Bits() <= 0 && to.Bits() <= 0)
		sameWay := w.gateway == gateway || (!gateway.IsValid() && w.gateway.IsUnspecified())
		if sameEnd && sameWay {
			return true
		}
	}
	return false
}

// release forgets a lease that ended.
func (n *Node) release(l *link, seen netlink.Link) {
	if err := errors.Join(keepOnly(seen, nil), dropRoutes(seen, nil, unix.RTPROT_DHCP)); err != nil {
		n.log.Warn("take an ended lease away", "link", seen.Attrs().Name, "error", err)
	}
	n.change(l, func() {
		l.lease = lease{}
		l.state.Addresses, l.state.Gateway, l.state.Expires = nil, netip.Addr{}, time.Time{}
	})
}

// asked are the options that a node has a use for (RFC 2132, 3442, 3397).
func (n *Node) asked() []dhcpv4.Modifier {
	options := []dhcpv4.Modifier{dhcpv4.WithRequestedOptions(
		dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionDomainName,
		dhcpv4.OptionInterfaceMTU, dhcpv4.OptionNTPServers, dhcpv4.OptionDNSDomainSearchList, dhcpv4.OptionClasslessStaticRoute,
	)}
	if n.cfg.Hostname != "" {
		options = append(options, dhcpv4.WithOption(dhcpv4.OptHostName(n.cfg.Hostname)))
	}
	return options
}

func (n *Node) request(ctx context.Context, name string) (*nclient4.Lease, lease, error) {
	return exchange(ctx, name, func(ctx context.Context, c *nclient4.Client) (*nclient4.Lease, error) {
		return c.Request(ctx, n.asked()...)
	})
}

func (n *Node) renew(ctx context.Context, name string, old *nclient4.Lease) (*nclient4.Lease, lease, error) {
	return exchange(ctx, name, func(ctx context.Context, c *nclient4.Client) (*nclient4.Lease, error) {
		return c.Renew(ctx, old, n.asked()...)
	})
}

// exchange talks to the server with a client that lives only so long: its raw
// socket receives every packet of the link.
func exchange(ctx context.Context, name string, talk func(context.Context, *nclient4.Client) (*nclient4.Lease, error)) (*nclient4.Lease, lease, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client, err := nclient4.New(name, nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(4))
	if err != nil {
		return nil, lease{}, explain(err, "packet sockets", "open a DHCP client on "+name)
	}
	defer client.Close()
	granted, err := talk(ctx, client)
	if err != nil {
		return nil, lease{}, err
	}
	settings, err := readLease(granted.ACK)
	return granted, settings, err
}
