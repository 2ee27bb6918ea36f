package network

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"oscine.dev/oscine/internal/object"
)

// startNode starts a node with these interfaces, until the test ends.
func startNode(t *testing.T, interfaces ...object.Interface) *Node {
	t.Helper()
	n := New(Config{Net: object.MachineNet{Interfaces: interfaces}, Time: object.MachineTime{Disabled: true},
		ResolvConf: filepath.Join(t.TempDir(), "resolv.conf")}, slog.New(slog.DiscardHandler))
	ctx := t.Context()
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return n
}

// stateOf is the state of the named link, zero while it is not there.
func stateOf(n *Node, name string) LinkState {
	for _, l := range n.State().Links {
		if l.Name == name {
			return l
		}
	}
	return LinkState{}
}

func hasAddress(n *Node, link, address string) bool {
	s := stateOf(n, link)
	return s.Err == nil && len(s.Addresses) == 1 && s.Addresses[0].String() == address
}

// onSite runs set with the other end of the node's cable.
func onSite(t *testing.T, site outside, set func(lan netlink.Link) error) {
	t.Helper()
	must(t, inNamespace(site.path, func() error {
		lan, err := netlink.LinkByName("lan0")
		if err != nil {
			return err
		}
		return set(lan)
	}))
}

func needKind(t *testing.T, link netlink.Link) {
	t.Helper()
	needIsolation(t)
	if err := netlink.LinkAdd(link); err != nil {
		t.Skipf("this kernel has no %s: %v", link.Type(), err)
	}
	must(t, netlink.LinkDel(link))
}

func TestVLAN(t *testing.T) {
	site := newSite(t)
	uplink, err := netlink.LinkByName("uplink0")
	must(t, err)
	needKind(t, &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "probe", ParentIndex: uplink.Attrs().Index}, VlanId: 9})
	onSite(t, site, func(lan netlink.Link) error {
		vlan := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "lan0.20", ParentIndex: lan.Attrs().Index}, VlanId: 20}
		if err := netlink.LinkAdd(vlan); err != nil {
			return err
		}
		address, err := netlink.ParseAddr("198.51.100.2/24")
		if err != nil {
			return err
		}
		if err := netlink.AddrReplace(vlan, address); err != nil {
			return err
		}
		return netlink.LinkSetUp(vlan)
	})
	must(t, netlink.LinkSetDown(uplink)) // nothing but the VLAN asks for it
	serveIn(t, site.path, "site", 9000)
	t.Run("is created", func(t *testing.T) {
		n := startNode(t, object.Interface{Name: "data", VLAN: &object.VLAN{Link: "uplink0", ID: 20}, Addresses: []string{"198.51.100.1/24"}})
		eventually(t, "the address", func() bool { return hasAddress(n, "data", "198.51.100.1/24") })
		if answer, err := ask("", "tcp4", "198.51.100.2:9000"); err != nil || !strings.HasPrefix(answer, "site 198.51.100.1:") {
			t.Errorf("through the VLAN: got %q, %v", answer, err)
		}
	})
	data, err := netlink.LinkByName("data")
	must(t, err)
	t.Run("stays over a restart", func(t *testing.T) {
		n := startNode(t, object.Interface{Name: "data", VLAN: &object.VLAN{Link: "uplink0", ID: 20}, Addresses: []string{"198.51.100.3/24"}})
		eventually(t, "the other address", func() bool { return hasAddress(n, "data", "198.51.100.3/24") })
		if again, err := netlink.LinkByName("data"); err != nil || again.Attrs().Index != data.Attrs().Index {
			t.Errorf("the link was created again: %v, %v", again, err)
		}
	})
	t.Run("is replaced by another", func(t *testing.T) {
		n := startNode(t, object.Interface{Name: "data", VLAN: &object.VLAN{Link: "uplink0", ID: 21}, Addresses: []string{"198.51.100.1/24"}})
		eventually(t, "the address", func() bool { return hasAddress(n, "data", "198.51.100.1/24") })
		if again, err := netlink.LinkByName("data"); err != nil || again.(*netlink.Vlan).VlanId != 21 {
			t.Errorf("got %v, %v, want VLAN 21", again, err)
		}
	})
	t.Run("is removed", func(t *testing.T) {
		startNode(t, object.Interface{Name: "uplink0", Addresses: []string{"192.0.2.1/24"}})
		eventually(t, "the link to go", func() bool { _, err := netlink.LinkByName("data"); return isGone(err) })
	})
	t.Run("spares links of others", func(t *testing.T) {
		dummy := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "data"}}
		must(t, netlink.LinkAdd(dummy))
		defer netlink.LinkDel(dummy)
		config := object.Interface{Name: "data", VLAN: &object.VLAN{Link: "uplink0", ID: 20}}
		if err := New(Config{}, slog.New(slog.DiscardHandler)).createVLAN(config); err == nil || !strings.Contains(err.Error(), "exists already") {
			t.Errorf("got %v", err)
		}
	})
}

func TestBond(t *testing.T) {
	needKind(t, netlink.NewLinkBond(netlink.LinkAttrs{Name: "probe"}))
	site := newSite(t)
	serveIn(t, site.path, "site", 9000)
	t.Run("is created", func(t *testing.T) {
		n := startNode(t,
			object.Interface{Name: "bond0", Bond: &object.Bond{Interfaces: []string{"uplink0", "absent0"}}, Addresses: []string{"192.0.2.40/24"}},
			object.Interface{Name: "bond0.20", VLAN: &object.VLAN{Link: "bond0", ID: 20}, Addresses: []string{"198.51.100.1/24"}})
		eventually(t, "the address", func() bool {
			return hasAddress(n, "bond0", "192.0.2.40/24") && hasAddress(n, "bond0.20", "198.51.100.1/24")
		})
		if answer, err := ask("", "tcp4", site.peer+":9000"); err != nil || !strings.HasPrefix(answer, "site 192.0.2.40:") {
			t.Errorf("through the bond: got %q, %v", answer, err)
		}
	})
	t.Run("is removed", func(t *testing.T) {
		n := startNode(t, object.Interface{Name: "uplink0", Addresses: []string{"192.0.2.1/24"}})
		eventually(t, "the device's own address", func() bool { return hasAddress(n, "uplink0", "192.0.2.1/24") })
		if _, err := netlink.LinkByName("bond0"); !isGone(err) {
			t.Errorf("bond0: %v", err)
		}
	})
}
