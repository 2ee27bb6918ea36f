package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/object"
)

// watch follows the kernel's links until ctx ends.
func (n *Node) watch(ctx context.Context) {
	defer n.stopAll()
	for ctx.Err() == nil {
		// The subscription ends when the kernel had to drop messages; a new
		// one begins with all links as they are.
		err := n.follow(ctx)
		if err != nil {
			n.log.Warn("follow links", "error", err)
		}
		pause(ctx, time.Second)
	}
}

func (n *Node) follow(ctx context.Context) error {
	updates, done := make(chan netlink.LinkUpdate), make(chan struct{})
	defer close(done)
	var failure error
	options := netlink.LinkSubscribeOptions{ListExisting: true, ErrorCallback: func(err error) { failure = err }}
	if err := netlink.LinkSubscribeWithOptions(updates, done, options); err != nil {
		return explain(err, "netlink", "follow links")
	}
	defer func() {
		go func() { // the subscription may be about to send one more
			for range updates {
			}
		}()
	}()
	n.createConfigured()
	again := time.NewTicker(time.Minute)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
			n.createConfigured()
			n.seeAll(ctx) // a link that could not be brought up sends no update
		case u, ok := <-updates:
			if !ok {
				return failure
			}
			if u.Header.Type == unix.RTM_DELLINK {
				n.drop(u.Attrs().Index)
				continue
			}
			if n.carries(u.Attrs().Name) {
				n.createConfigured()
			}
			n.see(ctx, u.Link)
		}
	}
}

func (n *Node) seeAll(ctx context.Context) {
	links, err := netlink.LinkList()
	if err != nil {
		n.log.Warn("list links", "error", err)
	}
	for _, l := range links {
		n.see(ctx, l)
	}
}

// see takes note of a link as it is now.
func (n *Node) see(ctx context.Context, seen netlink.Link) {
	attrs := seen.Attrs()
	config, ok := n.configOf(seen)
	if !ok {
		return
	}
	n.mu.Lock()
	l := n.links[attrs.Index]
	if l == nil {
		l = &link{config: config, state: LinkState{Source: "static"}}
		if config.DHCP {
			l.state.Source = "dhcp"
		}
		n.links[attrs.Index] = l
	}
	carrier := attrs.RawFlags&unix.IFF_UP != 0 && attrs.RawFlags&unix.IFF_LOWER_UP != 0
	l.state.Name, l.state.MAC, l.state.Carrier = attrs.Name, attrs.HardwareAddr.String(), carrier
	if !carrier {
		l.state.Err = fmt.Errorf("%s has no carrier: check its cable", attrs.Name)
	}
	n.mu.Unlock()
	if attrs.Flags&net.FlagUp == 0 {
		if err := n.raise(seen, config); err != nil {
			n.log.Warn("bring up link", "link", attrs.Name, "error", err)
			n.change(l, func() { l.state.Err = err })
		}
		return // its change comes as the next update
	}
	switch {
	case carrier && l.stop == nil:
		n.log.Info("link is up", "link", attrs.Name, "source", l.state.Source)
		run, stop := context.WithCancel(ctx)
		l.stop, l.done = stop, make(chan struct{})
		go func() {
			defer close(l.done)
			n.keep(run, l, seen)
		}()
	case !carrier && l.stop != nil:
		n.log.Info("link lost its carrier", "link", attrs.Name)
		l.halt()
	}
}

func (n *Node) raise(seen netlink.Link, config object.Interface) error {
	if config.MTU != 0 {
		if err := netlink.LinkSetMTU(seen, config.MTU); err != nil {
			return fmt.Errorf("set MTU of %s to %d: %w", seen.Attrs().Name, config.MTU, err)
		}
	}
	return explain(netlink.LinkSetUp(seen), "netlink", "bring up "+seen.Attrs().Name)
}

// keep holds the addresses of a link with carrier until ctx ends.
func (n *Node) keep(ctx context.Context, l *link, seen netlink.Link) {
	if l.config.DHCP {
		n.keepLease(ctx, l, seen)
		return
	}
	for delay := time.Second; ; delay = min(2*delay, time.Minute) {
		addresses, gateway, err := setStatic(seen, l.config)
		n.change(l, func() { l.state.Addresses, l.state.Gateway, l.state.Err = addresses, gateway, err })
		if err == nil {
			return
		}
		n.log.Warn("set static addresses", "link", l.state.Name, "error", err)
		if !pause(ctx, delay) {
			return
		}
	}
}

// halt stops the work on a link; its addresses stay, so that a cable that was
// out for a moment breaks no connection.
func (l *link) halt() {
	if l.stop != nil {
		l.stop()
		<-l.done
		l.stop = nil
	}
}

func (n *Node) drop(index int) {
	n.mu.Lock()
	l := n.links[index]
	delete(n.links, index)
	n.mu.Unlock()
	if l != nil {
		l.halt()
		n.log.Info("link is gone", "link", l.state.Name)
		n.writeResolvConf()
	}
}

func (n *Node) stopAll() {
	n.mu.Lock()
	links := n.byName()
	n.mu.Unlock()
	for _, l := range links {
		l.halt()
	}
}

// configOf finds the configuration of a link. With none listed every Ethernet
// device uses DHCP; links that software makes, ours among them, do not count.
func (n *Node) configOf(seen netlink.Link) (object.Interface, bool) {
	attrs := seen.Attrs()
	for _, c := range n.cfg.Net.Interfaces {
		if c.Name == attrs.Name || (c.MAC != "" && strings.EqualFold(c.MAC, attrs.HardwareAddr.String())) {
			return c, true
		}
	}
	every := len(n.cfg.Net.Interfaces) == 0
	ethernet := attrs.EncapType == "ether" && attrs.Flags&net.FlagLoopback == 0 && seen.Type() == "device" && !strings.HasPrefix(attrs.Name, vethPrefix)
	return object.Interface{Name: attrs.Name, DHCP: true}, every && ethernet
}

// setStatic gives a link exactly the configured addresses.
func setStatic(seen netlink.Link, config object.Interface) ([]netip.Prefix, netip.Addr, error) {
	var addresses []netip.Prefix
	for _, text := range config.Addresses {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, netip.Addr{}, fmt.Errorf("address of %s: %w", seen.Attrs().Name, err)
		}
		if err := netlink.AddrReplace(seen, ipv4Addr(p.Addr(), p.Bits())); err != nil {
			return nil, netip.Addr{}, fmt.Errorf("set address %s of %s: %w", p, seen.Attrs().Name, err)
		}
		addresses = append(addresses, p)
	}
	if err := keepOnly(seen, addresses); err != nil {
		return nil, netip.Addr{}, err
	}
	if err := setConfigured(seen, config, addresses); err != nil || config.Gateway == "" {
		return addresses, netip.Addr{}, err
	}
	gateway, err := netip.ParseAddr(config.Gateway)
	if err != nil {
		return nil, netip.Addr{}, fmt.Errorf("gateway of %s: %w", seen.Attrs().Name, err)
	}
	err = setRoute(seen, route{gateway: gateway}, addresses, unix.RTPROT_STATIC)
	return addresses, gateway, err
}

// setConfigured gives a link exactly the routes of its configuration, but for
// the default route.
func setConfigured(seen netlink.Link, config object.Interface, near []netip.Prefix) error {
	var wanted []route
	for _, r := range config.Routes {
		to, err := netip.ParsePrefix(r.To)
		if err != nil {
			return fmt.Errorf("route of %s: %w", seen.Attrs().Name, err)
		}
		via, err := netip.ParseAddr(r.Via)
		if err != nil {
			return fmt.Errorf("route of %s: %w", seen.Attrs().Name, err)
		}
		wanted = append(wanted, route{to: to, gateway: via})
	}
	for _, r := range wanted {
		if err := setRoute(seen, r, near, unix.RTPROT_STATIC); err != nil {
			return err
		}
	}
	if gateway, err := netip.ParseAddr(config.Gateway); err == nil {
		wanted = append(wanted, route{gateway: gateway})
	}
	return dropRoutes(seen, wanted, unix.RTPROT_STATIC)
}

// keepOnly removes the IPv4 addresses of a link that are not in wanted.
func keepOnly(seen netlink.Link, wanted []netip.Prefix) error {
	present, err := netlink.AddrList(seen, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", seen.Attrs().Name, err)
	}
	for _, a := range present {
		p, ok := prefixOf(a.IPNet)
		if !ok || containsPrefix(wanted, p) {
			continue
		}
		if err := netlink.AddrDel(seen, &a); err != nil {
			return fmt.Errorf("remove address %s of %s: %w", p, seen.Attrs().Name, err)
		}
	}
	return nil
}

func containsPrefix(list []netip.Prefix, p netip.Prefix) bool {
	for _, l := range list {
		if l == p {
			return true
		}
	}
	return false
}

// route is a way out; the zero destination is the default route.
type route struct {
	to      netip.Prefix
	gateway netip.Addr // zero: the destination is on the link
}

// setRoute installs r on a link. Links that came first are preferred, by
// metric, so that two default routes never fight.
func setRoute(seen netlink.Link, r route, near []netip.Prefix, protocol netlink.RouteProtocol) error {
	entry := netlink.Route{LinkIndex: seen.Attrs().Index, Protocol: protocol, Priority: 100 + seen.Attrs().Index}
	if r.to.IsValid() && r.to.Bits() > 0 {
		entry.Dst = ipNet(r.to.Addr(), r.to.Bits())
	}
	if r.gateway.IsValid() && !r.gateway.IsUnspecified() {
		entry.Gw = r.gateway.AsSlice()
		onLink := true
		for _, p := range near {
			onLink = onLink && !p.Contains(r.gateway)
		}
		if onLink { // clouds hand out /32 addresses with a gateway outside
			entry.Flags = int(netlink.FLAG_ONLINK)
		}
	} else {
		entry.Scope = netlink.SCOPE_LINK
	}
	if err := netlink.RouteReplace(&entry); err != nil {
		return fmt.Errorf("set route to %s by %s on %s: %w", r.to, r.gateway, seen.Attrs().Name, err)
	}
	return nil
}

// pause waits and reports whether ctx still lives.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
