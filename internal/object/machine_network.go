package object

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxInterfaceName is IFNAMSIZ of the kernel without the end of the string.
const maxInterfaceName = 15

// MachineNet lists the interfaces; with none listed, every Ethernet interface
// uses DHCP.
type MachineNet struct {
	Interfaces  []Interface `json:"interfaces,omitempty"`
	Nameservers []string    `json:"nameservers,omitempty"` // added before those from DHCP
}

// Interface configures one network interface by name or MAC address. With vlan or
// bond the node creates it; it needs a name then.
type Interface struct {
	Name      string   `json:"name,omitempty"`      // such as eth0
	MAC       string   `json:"mac,omitempty"`       // instead of the name, such as 52:54:00:12:34:56
	VLAN      *VLAN    `json:"vlan,omitempty"`      // create the interface as a VLAN
	Bond      *Bond    `json:"bond,omitempty"`      // create the interface as a bond
	DHCP      bool     `json:"dhcp,omitempty"`      // get addresses by DHCPv4; else addresses are given
	Addresses []string `json:"addresses,omitempty"` // CIDR, such as 192.0.2.7/24; a bond that only carries VLANs needs none
	Gateway   string   `json:"gateway,omitempty"`   // of the default route
	MTU       int      `json:"mtu,omitempty"`       // in bytes; default: the driver's
	Routes    []Route  `json:"routes,omitempty"`    // in addition to the default route and those from DHCP
}

// VLAN is an IEEE 802.1Q virtual network on another interface.
type VLAN struct {
	Link string `json:"link"` // name of the interface that carries it, a device or a bond
	ID   int    `json:"id"`   // from 1 to 4094
}

// Bond joins interfaces to one.
type Bond struct {
	Interfaces []string `json:"interfaces"`         // names of the devices
	Mode       BondMode `json:"mode,omitempty"`     // default active-backup
	LACPRate   LACPRate `json:"lacpRate,omitempty"` // how often 802.3ad asks the other side for a message; default slow
}

// BondMode says how a bond uses its devices, as the kernel's bonding driver names it.
type BondMode string

// The modes of bonds.
const (
	BondActiveBackup BondMode = "active-backup"
	Bond8023AD       BondMode = "802.3ad"
	BondBalanceRR    BondMode = "balance-rr"
	BondBalanceXOR   BondMode = "balance-xor"
	BondBroadcast    BondMode = "broadcast"
	BondBalanceTLB   BondMode = "balance-tlb"
	BondBalanceALB   BondMode = "balance-alb"
)

// LACPRate is every 30 seconds or every second.
type LACPRate string

// The rates of LACP.
const (
	LACPSlow LACPRate = "slow"
	LACPFast LACPRate = "fast"
)

func (n *MachineNet) check(c *Checker, at string) {
	names := map[string]string{} // of an interface → where it was used
	use := func(at, name, what string) {
		if other, used := names[name]; used && name != "" {
			c.Bad(at, "%s is %s already", name, other)
		}
		names[name] = what
	}
	for i, in := range n.Interfaces {
		at := fmt.Sprintf("%s.interfaces[%d]", at, i)
		in.check(c, at)
		use(at+".name", in.Name, fmt.Sprintf("interfaces[%d]", i))
		if in.VLAN != nil && slices.ContainsFunc(n.Interfaces, func(other Interface) bool { return other.Name == in.VLAN.Link && other.VLAN != nil }) {
			c.Bad(at+".vlan.link", "%s is a VLAN: must be a device or a bond", in.VLAN.Link)
		}
	}
	for i, in := range n.Interfaces {
		if in.Bond == nil {
			continue
		}
		for _, name := range in.Bond.Interfaces {
			use(fmt.Sprintf("%s.interfaces[%d].bond.interfaces", at, i), name, "a device of "+in.Name)
		}
	}
	for i, in := range n.Interfaces {
		if in.VLAN != nil && strings.HasPrefix(names[in.VLAN.Link], "a device of ") {
			c.Bad(fmt.Sprintf("%s.interfaces[%d].vlan.link", at, i), "%s is %s: put the VLAN on the bond", in.VLAN.Link, names[in.VLAN.Link])
		}
	}
	for i, ns := range n.Nameservers {
		if _, err := netip.ParseAddr(ns); err != nil {
			c.Bad(fmt.Sprintf("%s.nameservers[%d]", at, i), "must be an IP address, got %q", ns)
		}
	}
}

func (in *Interface) check(c *Checker, at string) {
	if (in.Name == "") == (in.MAC == "") {
		c.Bad(at, "needs either name or mac")
	}
	in.checkCreated(c, at)
	if in.DHCP && len(in.Addresses) > 0 || !in.DHCP && len(in.Addresses) == 0 && in.Bond == nil {
		c.Bad(at, "needs either dhcp: true or addresses")
	}
	for i, a := range in.Addresses {
		if _, err := netip.ParsePrefix(a); err != nil {
			c.Bad(fmt.Sprintf("%s.addresses[%d]", at, i), "must be an address with its prefix length, such as 192.0.2.7/24, got %q", a)
		}
	}
	if in.Gateway != "" {
		if _, err := netip.ParseAddr(in.Gateway); err != nil {
			c.Bad(at+".gateway", "must be an IP address, got %q", in.Gateway)
		}
	}
	checkRoutes(c, at+".routes", in.Routes)
	if in.MTU != 0 && (in.MTU < 576 || in.MTU > 65536) {
		c.Bad(at+".mtu", "must be from 576 to 65536, got %d", in.MTU)
	}
}

// checkCreated checks what the node needs to create an interface.
func (in *Interface) checkCreated(c *Checker, at string) {
	if in.VLAN == nil && in.Bond == nil {
		return
	}
	if in.VLAN != nil && in.Bond != nil {
		c.Bad(at, "cannot be both a VLAN and a bond: give the VLAN an entry of its own, with the bond as its link")
	}
	if in.MAC != "" {
		c.Bad(at+".mac", "does not exist before the node creates the interface: give a name")
	}
	checkInterfaceName(c, at+".name", in.Name)
	if v := in.VLAN; v != nil {
		checkInterfaceName(c, at+".vlan.link", v.Link)
		if v.ID < 1 || v.ID > 4094 {
			c.Bad(at+".vlan.id", "must be from 1 to 4094, got %d", v.ID)
		}
	}
	if b := in.Bond; b != nil {
		if len(b.Interfaces) == 0 || len(b.Interfaces) > 32 {
			c.Bad(at+".bond.interfaces", "needs 1 to 32 names of devices, got %d", len(b.Interfaces))
		}
		for i, name := range b.Interfaces {
			checkInterfaceName(c, fmt.Sprintf("%s.bond.interfaces[%d]", at, i), name)
		}
		c.OneOf(at+".bond.mode", string(b.Mode), string(BondActiveBackup), string(Bond8023AD), string(BondBalanceRR), string(BondBalanceXOR),
			string(BondBroadcast), string(BondBalanceTLB), string(BondBalanceALB))
		c.OneOf(at+".bond.lacpRate", string(b.LACPRate), string(LACPSlow), string(LACPFast))
		if b.LACPRate != "" && b.Mode != Bond8023AD {
			c.Bad(at+".bond.lacpRate", "needs mode: %s", Bond8023AD)
		}
	}
}

// checkInterfaceName holds that the kernel takes name for a link; see dev_valid_name.
func checkInterfaceName(c *Checker, at, name string) {
	if name == "" || len(name) > maxInterfaceName || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n\v\f\r%") {
		c.Bad(at, "must be the name of an interface of at most %d bytes, such as eth0, got %q", maxInterfaceName, name)
	}
}
