package network

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// aliasPrefix marks the node's end of a workload's veth pair; the alias holds
// "oscine <id> <address>" and is where addresses are remembered.
const aliasPrefix = "oscine "

// containerLink is the name of the link inside a workload.
const containerLink = "eth0"

// vethPrefix begins the names of the node's ends.
const vethPrefix = "osc"

// vethName is the node's end of the pair of id, within the kernel's 15 bytes.
func vethName(id string) string {
	hash := fnv.New64a()
	hash.Write([]byte(id)) // fnv never returns an error
	return fmt.Sprintf("%s%012x", vethPrefix, hash.Sum64()&(1<<48-1))
}

// ensureBridge makes oscine0 with the node's address, or adopts the one that
// an earlier daemon left.
func (b *Bridge) ensureBridge() error {
	subnet, ok := bridgeSubnet()
	if !ok {
		taken, err := takenPrefixes()
		if err != nil {
			return err
		}
		if subnet, err = chooseSubnet(taken); err != nil {
			return err
		}
	}
	link, err := netlink.LinkByName(bridgeName)
	if isGone(err) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = bridgeName
		attrs.MTU = uplinkMTU()
		// A fixed address: else the bridge takes that of its lowest port and
		// changes it under the workloads.
		attrs.HardwareAddr = macOf(gatewayOf(subnet))
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return explain(err, "bridge", "make bridge "+bridgeName)
		}
		link, err = netlink.LinkByName(bridgeName)
	}
	if err != nil {
		return fmt.Errorf("look at bridge %s: %w", bridgeName, err)
	}
	if link.Type() != "bridge" {
		return fmt.Errorf("%s is a %s and not a bridge: rename or remove that link, Oscine needs the name", bridgeName, link.Type())
	}
	if err := netlink.AddrReplace(link, ipv4Addr(gatewayOf(subnet), subnet.Bits())); err != nil {
		return fmt.Errorf("set address of %s: %w", bridgeName, err)
	}
	if err := setBridgeSysctls(); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", bridgeName, err)
	}
	b.subnet = subnet
	return nil
}

func setBridgeSysctls() error {
	for _, s := range []struct{ path, value string }{
		// The node's own connections to 127.0.0.1 reach published ports; the
		// firewall drops whatever a workload itself sends to 127.0.0.0/8.
		{"net/ipv4/conf/" + bridgeName + "/route_localnet", "1"},
		{"net/ipv4/conf/" + bridgeName + "/send_redirects", "0"},
		{"net/ipv6/conf/" + bridgeName + "/disable_ipv6", "1"},
	} {
		if err := setSysctl(s.path, s.value); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// bridgeSubnet reads the subnet back from the address of oscine0.
func bridgeSubnet() (netip.Prefix, bool) {
	link, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return netip.Prefix{}, false
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return netip.Prefix{}, false
	}
	for _, a := range addrs {
		if p, ok := prefixOf(a.IPNet); ok && p.Bits() == subnetBits {
			return p.Masked(), true
		}
	}
	return netip.Prefix{}, false
}

// takenPrefixes lists what the node reaches already: its addresses and routes.
func takenPrefixes() ([]netip.Prefix, error) {
	var taken []netip.Prefix
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if p, ok := prefixOf(r.Dst); ok {
			taken = append(taken, p)
		}
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if p, ok := prefixOf(a.IPNet); ok {
			taken = append(taken, p.Masked())
		}
	}
	return taken, nil
}

// uplinkMTU is the MTU of the default route, so that no packet of a workload
// is too large for the way out.
func uplinkMTU() int {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return 1500
	}
	for _, r := range routes {
		if r.Dst != nil && r.Dst.IP != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil && link.Attrs().MTU >= 576 {
			return link.Attrs().MTU
		}
	}
	return 1500
}

// attachedWorkloads reads which workloads hang on the bridge, with addresses.
func attachedWorkloads() (map[string]netip.Addr, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, explain(err, "netlink", "list links")
	}
	attached := map[string]netip.Addr{}
	for _, l := range links {
		if id, addr, ok := parseAlias(l.Attrs().Alias); ok && l.Attrs().Name == vethName(id) {
			attached[id] = addr
		}
	}
	return attached, nil
}

// parseAlias reads what ensureVeth wrote on the node's end of a pair.
func parseAlias(alias string) (string, netip.Addr, bool) {
	rest, ok := strings.CutPrefix(alias, aliasPrefix)
	if !ok {
		return "", netip.Addr{}, false
	}
	id, text, ok := strings.Cut(rest, " ")
	addr, err := netip.ParseAddr(text)
	return id, addr, ok && err == nil && addr.Is4() && idRE.MatchString(id)
}

// ensureVeth connects the namespace of id to the bridge and returns its
// address. The alias is set last, so a pair without it is one that a crash
// left unfinished and is recreated.
func (b *Bridge) ensureVeth(id string) (netip.Addr, error) {
	attached, err := attachedWorkloads()
	if err != nil {
		return netip.Addr{}, err
	}
	addr, ok := attached[id]
	if ok && b.subnet.Contains(addr) && vethWorks(b.namespace(id), addr) {
		host, err := netlink.LinkByName(vethName(id))
		if err != nil {
			return netip.Addr{}, fmt.Errorf("look at %s: %w", vethName(id), err)
		}
		if bridge, err := netlink.LinkByName(bridgeName); err == nil && host.Attrs().MasterIndex == bridge.Attrs().Index {
			return addr, isolatePort(host)
		}
	}
	if err := removeVeth(id); err != nil {
		return netip.Addr{}, err
	}
	if !ok || !b.subnet.Contains(addr) {
		used := map[netip.Addr]bool{}
		for _, a := range attached {
			used[a] = true
		}
		if addr, err = allocate(b.subnet, id, used); err != nil {
			return netip.Addr{}, err
		}
	}
	if err := b.addVeth(id, addr); err != nil {
		return netip.Addr{}, errors.Join(err, removeVeth(id))
	}
	return addr, nil
}

func (b *Bridge) addVeth(id string, addr netip.Addr) error {
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("look at bridge %s: %w", bridgeName, err)
	}
	ns, err := netns.GetFromPath(b.namespace(id))
	if err != nil {
		return fmt.Errorf("open network namespace of %s: %w", id, err)
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = vethName(id)
	attrs.MTU = bridge.Attrs().MTU
	attrs.MasterIndex = bridge.Attrs().Index
	pair := &netlink.Veth{
		LinkAttrs: attrs, PeerName: containerLink, PeerNamespace: netlink.NsFd(int(ns)), PeerHardwareAddr: macOf(addr),
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return explain(err, "veth", "make veth pair "+attrs.Name)
	}
	host, err := netlink.LinkByName(attrs.Name)
	if err != nil {
		return fmt.Errorf("look at %s: %w", attrs.Name, err)
	}
	if err := isolatePort(host); err != nil {
		return err
	}
	if err := setUpInside(ns, addr, gatewayOf(b.subnet)); err != nil {
		return fmt.Errorf("set up %s of %s: %w", containerLink, id, err)
	}
	if err := netlink.LinkSetUp(host); err != nil {
		return fmt.Errorf("bring up %s: %w", attrs.Name, err)
	}
	if err := netlink.LinkSetAlias(host, aliasPrefix+id+" "+addr.String()); err != nil {
		return fmt.Errorf("mark %s: %w", attrs.Name, err)
	}
	return nil
}

// isolatePort keeps frames from passing between workloads below the firewall.
// Where br_netfilter sends bridged packets through the firewall, as Docker and
// Kubernetes demand, the firewall does that alone: br_netfilter forwards a
// published port from bridge port to bridge port, which isolation would stop,
// and back into the port it came from, which needs hairpin.
func isolatePort(host netlink.Link) error {
	mode, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
	filtered := err == nil && strings.TrimSpace(string(mode)) == "1"
	if err := netlink.LinkSetIsolated(host, !filtered); err != nil {
		return explain(err, "bridge port isolation", "isolate "+host.Attrs().Name)
	}
	if err := netlink.LinkSetHairpin(host, filtered); err != nil {
		return explain(err, "bridge hairpin", "set hairpin mode of "+host.Attrs().Name)
	}
	return nil
}

// setUpInside configures lo and eth0 of a workload. Its address is a /32 with
// the node as only neighbour: a packet to another workload goes through the
// node's firewall and is refused at once, instead of waiting for ARP.
func setUpInside(ns netns.NsHandle, addr, gateway netip.Addr) error {
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	for _, name := range []string{"lo", containerLink} {
		link, err := h.LinkByName(name)
		if err != nil {
			return err
		}
		if name == containerLink {
			if err := h.AddrReplace(link, ipv4Addr(addr, 32)); err != nil {
				return err
			}
		}
		if err := h.LinkSetUp(link); err != nil {
			return err
		}
		if name == "lo" {
			continue
		}
		near := netlink.Route{LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: ipNet(gateway, 32)}
		if err := h.RouteReplace(&near); err != nil {
			return err
		}
		far := netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway.AsSlice()}
		if err := h.RouteReplace(&far); err != nil {
			return err
		}
	}
	return nil
}

// vethWorks checks the workload's end of a pair.
func vethWorks(path string, addr netip.Addr) bool {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return false
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return false
	}
	defer h.Close()
	link, err := h.LinkByName(containerLink)
	if err != nil || link.Attrs().Flags&net.FlagUp == 0 {
		return false
	}
	addrs, err := h.AddrList(link, netlink.FAMILY_V4)
	return err == nil && len(addrs) == 1 && addrs[0].IP.Equal(addr.AsSlice())
}

// removeVeth deletes the pair of id; deleting one end takes both.
func removeVeth(id string) error {
	link, err := netlink.LinkByName(vethName(id))
	if isGone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", vethName(id), err)
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("remove %s: %w", vethName(id), err)
	}
	return nil
}

func ipNet(addr netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(bits, addr.BitLen())}
}

func ipv4Addr(addr netip.Addr, bits int) *netlink.Addr {
	return &netlink.Addr{IPNet: ipNet(addr, bits)}
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), ones), ok
}
