package network

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"

	"oscine.dev/oscine/internal/object"
)

// serveDHCP answers in the namespace at path with address().
func serveDHCP(t *testing.T, path string, address func() net.IP, seconds uint32) *atomic.Int32 {
	t.Helper()
	var acks atomic.Int32
	server := net.IPv4(192, 0, 2, 2)
	handler := func(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
		kind := dhcpv4.MessageTypeOffer
		if m.MessageType() == dhcpv4.MessageTypeRequest {
			kind = dhcpv4.MessageTypeAck
			acks.Add(1)
		}
		reply, err := dhcpv4.NewReplyFromRequest(m,
			dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(address()), dhcpv4.WithServerIP(server),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server)), dhcpv4.WithLeaseTime(seconds),
			dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithRouter(server), dhcpv4.WithDNS(net.IPv4(192, 0, 2, 53)),
			dhcpv4.WithOption(dhcpv4.OptDomainName("site.example")), dhcpv4.WithOption(dhcpv4.OptNTPServers(server)),
		)
		if err != nil {
			return
		}
		if _, err := conn.WriteTo(reply.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 68}); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("DHCP server: %v", err)
		}
	}
	var s *server4.Server
	must(t, inNamespace(path, func() (err error) {
		s, err = server4.NewServer("lan0", &net.UDPAddr{IP: net.IPv4zero, Port: 67}, handler)
		return err
	}))
	go s.Serve() // ends with Close
	t.Cleanup(func() { s.Close() })
	return &acks
}

// runNode starts a node on uplink0, which loses the site's own configuration.
func runNode(t *testing.T, in object.Interface) *Node {
	t.Helper()
	uplink, err := netlink.LinkByName("uplink0")
	must(t, err)
	must(t, keepOnly(uplink, nil))
	must(t, netlink.LinkSetDown(uplink))
	n := New(Config{
		Hostname: "testnode", Net: object.MachineNet{Interfaces: []object.Interface{in}, Nameservers: []string{"192.0.2.99"}},
		Time: object.MachineTime{Disabled: true}, ResolvConf: filepath.Join(t.TempDir(), "run", "resolv.conf"),
	}, slog.New(slog.DiscardHandler))
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

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("not within 20 s: %s", what)
}

func addressOf(n *Node) string {
	if s := n.State(); len(s.Links) == 1 && len(s.Links[0].Addresses) == 1 {
		return s.Links[0].Addresses[0].String()
	}
	return ""
}

func TestDHCP(t *testing.T) {
	site := newSite(t)
	var second atomic.Bool
	acks := serveDHCP(t, site.path, func() net.IP {
		if second.Load() {
			return net.IPv4(192, 0, 2, 88)
		}
		return net.IPv4(192, 0, 2, 77)
	}, 12)
	n := runNode(t, object.Interface{Name: "uplink0", DHCP: true})
	<-n.online
	eventually(t, "first lease", func() bool { return addressOf(n) == "192.0.2.77/24" })
	s := n.State()
	if got := s.Links[0].Gateway.String(); got != "192.0.2.2" {
		t.Errorf("gateway: got %s, want 192.0.2.2", got)
	}
	if left := time.Until(s.Links[0].Expires); left <= 0 || left > 12*time.Second {
		t.Errorf("lease ends in %s, want at most 12 s", left)
	}
	if got := n.timeServers(); len(got) != 1 || got[0] != "192.0.2.2" {
		t.Errorf("time servers: got %v, want the one of the lease", got)
	}
	text, err := os.ReadFile(n.cfg.ResolvConf)
	must(t, err)
	const want = "# written by oscined\nsearch site.example\nnameserver 192.0.2.99\nnameserver 192.0.2.53\noptions edns0 timeout:2\n"
	if string(text) != want {
		t.Errorf("resolv.conf: got %q, want %q", text, want)
	}
	serveIn(t, site.path, "site", 9000)
	if answer, err := ask("", "tcp4", "192.0.2.2:9000"); err != nil || !strings.HasPrefix(answer, "site 192.0.2.77:") {
		t.Errorf("from the leased address: got %q, %v", answer, err)
	}
	before := acks.Load()
	second.Store(true)
	eventually(t, "renewal with another address", func() bool { return acks.Load() > before && addressOf(n) == "192.0.2.88/24" })
	uplink, err := netlink.LinkByName("uplink0")
	must(t, err)
	eventually(t, "the old address to go", func() bool {
		addrs, err := netlink.AddrList(uplink, netlink.FAMILY_V4)
		return err == nil && len(addrs) == 1
	})
}

func TestCarrierComesLater(t *testing.T) {
	site := newSite(t)
	serveDHCP(t, site.path, func() net.IP { return net.IPv4(192, 0, 2, 77) }, 3600)
	setLAN := func(set func(netlink.Link) error) {
		must(t, inNamespace(site.path, func() error {
			lan, err := netlink.LinkByName("lan0")
			if err != nil {
				return err
			}
			return set(lan)
		}))
	}
	setLAN(netlink.LinkSetDown)
	n := runNode(t, object.Interface{Name: "uplink0", DHCP: true})
	eventually(t, "the link without carrier", func() bool {
		s := n.State()
		return len(s.Links) == 1 && s.Links[0].Err != nil && strings.Contains(s.Links[0].Err.Error(), "carrier")
	})
	setLAN(netlink.LinkSetUp)
	eventually(t, "a lease once the cable is in", func() bool { return addressOf(n) == "192.0.2.77/24" && n.State().Links[0].Err == nil })
}

func TestStaticAddresses(t *testing.T) {
	site := newSite(t)
	n := runNode(t, object.Interface{Name: "uplink0", Addresses: []string{"192.0.2.30/24", "2001:db8::30/64"}, Gateway: "192.0.2.2", MTU: 1400,
		Routes: []object.Route{{To: "198.51.100.0/24", Via: "192.0.2.3"}}})
	<-n.online
	serveIn(t, site.path, "site", 9000)
	if answer, err := ask("", "tcp4", site.peer+":9000"); err != nil || !strings.HasPrefix(answer, "site 192.0.2.30:") {
		t.Errorf("from the static address: got %q, %v", answer, err)
	}
	uplink, err := netlink.LinkByName("uplink0")
	must(t, err)
	if uplink.Attrs().MTU != 1400 {
		t.Errorf("MTU: got %d, want 1400", uplink.Attrs().MTU)
	}
	routes, err := netlink.RouteGet(net.IPv4(203, 0, 113, 5))
	must(t, err)
	if len(routes) != 1 || !routes[0].Gw.Equal(net.IPv4(192, 0, 2, 2)) {
		t.Errorf("way out: got %v, want by 192.0.2.2", routes)
	}
	if routes, err = netlink.RouteGet(net.IPv4(198, 51, 100, 5)); err != nil || len(routes) != 1 || !routes[0].Gw.Equal(net.IPv4(192, 0, 2, 3)) {
		t.Errorf("configured route: got %v, %v, want by 192.0.2.3", routes, err)
	}
	// Another configuration takes its routes away, and keeps the way out.
	must(t, setConfigured(uplink, object.Interface{Gateway: "192.0.2.2"}, nil))
	if routes, err = netlink.RouteGet(net.IPv4(198, 51, 100, 5)); err != nil || len(routes) != 1 || !routes[0].Gw.Equal(net.IPv4(192, 0, 2, 2)) {
		t.Errorf("route that is no longer configured: got %v, %v, want by 192.0.2.2", routes, err)
	}
	if name, err := os.Hostname(); err != nil || name != "testnode" {
		t.Errorf("host name: got %s, %v, want testnode", name, err)
	}
}

func TestDefaultIsEveryEthernetDevice(t *testing.T) {
	n := New(Config{}, slog.New(slog.DiscardHandler))
	ether := netlink.LinkAttrs{Name: "eth0", EncapType: "ether"}
	for _, c := range []struct {
		link netlink.Link
		want bool
	}{
		{&netlink.Device{LinkAttrs: ether}, true},
		{&netlink.Veth{LinkAttrs: ether}, false},
		{&netlink.Bridge{LinkAttrs: ether}, false},
		{&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", EncapType: "loopback", Flags: net.FlagLoopback}}, false},
	} {
		if config, ok := n.configOf(c.link); ok != c.want || (ok && !config.DHCP) {
			t.Errorf("%s %s: got %+v, %v, want %v", c.link.Type(), c.link.Attrs().Name, config, ok, c.want)
		}
	}
}

func TestConfigByMAC(t *testing.T) {
	n := New(Config{Net: object.MachineNet{Interfaces: []object.Interface{{MAC: "52:54:00:AA:BB:CC", DHCP: true}}}}, slog.New(slog.DiscardHandler))
	mac, err := net.ParseMAC("52:54:00:aa:bb:cc")
	must(t, err)
	if _, ok := n.configOf(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "ens3", HardwareAddr: mac}}); !ok {
		t.Error("link with the configured MAC: got no configuration")
	}
	if _, ok := n.configOf(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "ens4", EncapType: "ether"}}); ok {
		t.Error("another link: got a configuration")
	}
}

func TestResolvConfBounds(t *testing.T) {
	n := New(Config{Net: object.MachineNet{Nameservers: []string{"192.0.2.1", "192.0.2.1", "192.0.2.2"}}}, slog.New(slog.DiscardHandler))
	n.links[1] = &link{lease: lease{nameservers: []netip.Addr{netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("192.0.2.4")}}}
	var got []string
	for _, a := range n.nameservers() {
		got = append(got, a.String())
	}
	if strings.Join(got, " ") != "192.0.2.1 192.0.2.2 192.0.2.3" {
		t.Errorf("name servers: got %v, want the first three, each once", got)
	}
}
