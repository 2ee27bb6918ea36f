package network

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/object"
)

// outside is a machine of the site, and the node's addresses towards it.
type outside struct{ path, node, peer string }

// newSite gives the test's node an uplink to another namespace.
func newSite(t *testing.T) outside {
	t.Helper()
	needIsolation(t)
	site := outside{path: filepath.Join(t.TempDir(), "site"), node: "192.0.2.1", peer: "192.0.2.2"}
	must(t, ensureNamespace(site.path))
	t.Cleanup(func() { must(t, removeNamespace(site.path)) })
	fd, err := os.Open(site.path)
	must(t, err)
	defer fd.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink0"
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "lan0", PeerNamespace: netlink.NsFd(int(fd.Fd()))}))
	link, err := netlink.LinkByName("uplink0")
	must(t, err)
	t.Cleanup(func() { must(t, netlink.LinkDel(link)) })
	addr, err := netlink.ParseAddr(site.node + "/24")
	must(t, err)
	must(t, netlink.AddrReplace(link, addr))
	must(t, netlink.LinkSetUp(link))
	must(t, netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(site.peer)}))
	must(t, inNamespace(site.path, func() error {
		lan, err := netlink.LinkByName("lan0")
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr(site.peer + "/24")
		if err != nil {
			return err
		}
		return errors.Join(netlink.AddrReplace(lan, addr), netlink.LinkSetUp(lan))
	}))
	return site
}

func newTestBridge(t *testing.T) *Bridge {
	t.Helper()
	b := NewBridge(t.TempDir(), slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		must(t, b.Reconcile(context.Background(), nil))
		if link, err := netlink.LinkByName(bridgeName); err == nil {
			must(t, netlink.LinkDel(link))
		}
	})
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serveIn answers every connection with the name and the caller's address.
func serveIn(t *testing.T, path, name string, port int) {
	t.Helper()
	var l net.Listener
	var u net.PacketConn
	listen := func() (err error) {
		if l, err = net.Listen("tcp4", fmt.Sprintf(":%d", port)); err != nil {
			return err
		}
		u, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", port))
		return err
	}
	must(t, inNamespace(path, listen))
	t.Cleanup(func() { l.Close(); u.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s %s\n", name, c.RemoteAddr())
			c.Close()
		}
	}()
	go func() {
		buf := make([]byte, 64)
		for {
			_, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			if _, err := fmt.Fprintf(packetTo{u, from}, "%s %s\n", name, from); err != nil {
				return
			}
		}
	}()
}

type packetTo struct {
	net.PacketConn
	to net.Addr
}

func (p packetTo) Write(b []byte) (int, error) { return p.WriteTo(b, p.to) }

// ask connects from the namespace at path, "" being the node itself.
func ask(path, proto, address string) (string, error) {
	var answer string
	dial := func() error {
		c, err := net.DialTimeout(proto, address, 2*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return err
		}
		if strings.HasPrefix(proto, "udp") {
			if _, err := io.WriteString(c, "?"); err != nil {
				return err
			}
		}
		answer, err = bufio.NewReader(c).ReadString('\n')
		return err
	}
	if path == "" {
		return answer, errors.Join(dial(), nil)
	}
	err := inNamespace(path, dial)
	return answer, err
}

func TestPublishedPortsAreReachedFromEverywhere(t *testing.T) {
	for _, filtered := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables="+filtered, func(t *testing.T) {
			site := newSite(t)
			if err := setSysctl("net/bridge/bridge-nf-call-iptables", filtered); errors.Is(err, os.ErrNotExist) && filtered == "1" {
				t.Skip("needs br_netfilter, which this kernel has not loaded")
			}
			testPublishedPorts(t, site)
		})
	}
}

func testPublishedPorts(t *testing.T, site outside) {
	b := newTestBridge(t)
	web := []object.Port{{Port: 80, HostPort: 8080, Protocol: "tcp"}, {Port: 80, HostPort: 8080, Protocol: "udp"}}
	path, addr, err := b.Attach(t.Context(), "workload-web", web)
	must(t, err)
	other, _, err := b.Attach(t.Context(), "workload-other", nil)
	must(t, err)
	serveIn(t, path, "web", 80)
	for _, proto := range []string{"tcp4", "udp4"} {
		for _, c := range []struct{ from, path, address, caller string }{
			{"site", site.path, site.node + ":8080", site.peer},
			{"node by localhost", "", "127.0.0.1:8080", ""},
			{"node by its address", "", site.node + ":8080", ""},
			{"another workload", other, site.node + ":8080", ""},
			{"the workload itself", path, site.node + ":8080", ""},
			{"node directly", "", addr.String() + ":80", ""},
		} {
			t.Run(proto+" from "+c.from, func(t *testing.T) {
				answer, err := ask(c.path, proto, c.address)
				if err != nil || !strings.HasPrefix(answer, "web "+c.caller) {
					t.Errorf("ask %s: got %q, %v; want web with caller %s", c.address, answer, err, c.caller)
				}
			})
		}
	}
	if _, err := ask(other, "tcp4", addr.String()+":80"); err == nil {
		t.Error("one workload reached another without a published port")
	} else if !errors.Is(err, os.ErrDeadlineExceeded) && !strings.Contains(err.Error(), "no route to host") {
		t.Errorf("refusal between workloads: got %v, want no route to host", err)
	}
}

func TestWorkloadReachesOutsideUnderTheNodesAddress(t *testing.T) {
	site, b := newSite(t), newTestBridge(t)
	path, _, err := b.Attach(t.Context(), "workload-client", nil)
	must(t, err)
	serveIn(t, site.path, "site", 9000)
	answer, err := ask(path, "tcp4", site.peer+":9000")
	if err != nil || !strings.HasPrefix(answer, "site "+site.node+":") {
		t.Errorf("from workload to site: got %q, %v; want site to see %s", answer, err, site.node)
	}
}

func TestWorkloadCannotReachLocalhostOfTheNode(t *testing.T) {
	newSite(t)
	b := newTestBridge(t)
	path, addr, err := b.Attach(t.Context(), "workload-a", nil)
	must(t, err)
	l, err := net.Listen("tcp4", "127.0.0.1:7000")
	must(t, err)
	defer l.Close()
	// A workload with NET_ADMIN might route 127.0.0.0/8 to the node.
	must(t, inNamespace(path, func() error {
		link, err := netlink.LinkByName(containerLink)
		if err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		gw := gatewayOf(b.Subnet())
		return errors.Join(
			setSysctl("net/ipv4/conf/all/route_localnet", "1"),
			setSysctl("net/ipv4/conf/eth0/route_localnet", "1"),
			netlink.AddrDel(lo, ipv4Addr(netip.MustParseAddr("127.0.0.1"), 8)),
			netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gw.AsSlice(), Dst: ipNet(netip.MustParseAddr("127.0.0.0"), 8)}),
		)
	}))
	dial := func() error {
		d := net.Dialer{Timeout: time.Second, LocalAddr: &net.TCPAddr{IP: addr.AsSlice()}}
		c, err := d.Dial("tcp4", "127.0.0.1:7000")
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := inNamespace(path, dial); err == nil {
		t.Error("a workload reached a service on the node's 127.0.0.1")
	}
	// The same without the firewall, else the test could not fail.
	conn, err := nftables.New()
	must(t, err)
	conn.DelTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableName})
	must(t, conn.Flush())
	if err := inNamespace(path, dial); err != nil {
		t.Errorf("without the firewall the workload should reach it: %v", err)
	}
}

// TestNodesOwnPortsAreClosed: the API of a node is not for its workloads, but
// for those that ask.
func TestNodesOwnPortsAreClosed(t *testing.T) {
	site := newSite(t)
	b := newTestBridge(t)
	b.Close(7443)
	b.Admit("workload-b", true)
	api, err := net.Listen("tcp4", "0.0.0.0:7443")
	must(t, err)
	defer api.Close()
	other, err := net.Listen("tcp4", "0.0.0.0:7444")
	must(t, err)
	defer other.Close()
	reach := func(path string, address string) error {
		return inNamespace(path, func() error {
			c, err := (&net.Dialer{Timeout: time.Second}).Dial("tcp4", address)
			if err == nil {
				c.Close()
			}
			return err
		})
	}
	a, _, err := b.Attach(t.Context(), "workload-a", nil)
	must(t, err)
	asks, _, err := b.Attach(t.Context(), "workload-b", nil)
	must(t, err)
	for _, host := range []string{gatewayOf(b.Subnet()).String(), site.node} {
		if err := reach(a, host+":7443"); err == nil {
			t.Errorf("a workload reached the API at %s", host)
		}
		if err := reach(a, host+":7444"); err != nil {
			t.Errorf("another port of the node at %s: %v", host, err)
		}
		if err := reach(asks, host+":7443"); err != nil {
			t.Errorf("a workload that asked: %v", err)
		}
	}
	b.Admit("workload-b", false)
	_, _, err = b.Attach(t.Context(), "workload-b", nil)
	must(t, err)
	if err := reach(asks, gatewayOf(b.Subnet()).String()+":7443"); err == nil {
		t.Error("a workload that asks no more reached the API")
	}
}

func TestOutsideCannotReachUnpublishedPorts(t *testing.T) {
	site, b := newSite(t), newTestBridge(t)
	path, addr, err := b.Attach(t.Context(), "workload-db", nil)
	must(t, err)
	serveIn(t, path, "db", 5432)
	must(t, inNamespace(site.path, func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: ipNet(b.Subnet().Addr(), b.Subnet().Bits()), Gw: net.ParseIP(site.node)})
	}))
	if _, err := ask(site.path, "tcp4", addr.String()+":5432"); err == nil {
		t.Error("the site reached a port that is not published")
	}
}

func TestAttachAgainKeepsNamespaceAndAddress(t *testing.T) {
	newSite(t)
	b := newTestBridge(t)
	path, addr, err := b.Attach(t.Context(), "model-digits", nil)
	must(t, err)
	again := NewBridge(b.dir, b.log) // as after a restart of the daemon
	path2, addr2, err := again.Attach(t.Context(), "model-digits", nil)
	must(t, err)
	if path != path2 || addr != addr2 {
		t.Errorf("second Attach: got %s %s, want %s %s", path2, addr2, path, addr)
	}
	must(t, again.Detach("model-digits"))
	must(t, again.Detach("model-digits"))
	_, addr3, err := again.Attach(t.Context(), "model-digits", nil)
	must(t, err)
	if addr != addr3 {
		t.Errorf("address after Detach: got %s, want the same %s", addr3, addr)
	}
}

func TestReconcileRepairs(t *testing.T) {
	site, b := newSite(t), newTestBridge(t)
	ports := []object.Port{{Port: 80, HostPort: 8081}}
	path, _, err := b.Attach(t.Context(), "workload-web", ports)
	must(t, err)
	gone, _, err := b.Attach(t.Context(), "workload-gone", nil)
	must(t, err)
	serveIn(t, path, "web", 80)
	b.forget("workload-web") // the daemon that held the ports died
	breakages := map[string]func() error{
		"nothing": func() error { return nil },
		"link deleted": func() error {
			link, err := netlink.LinkByName(vethName("workload-web"))
			if err != nil {
				return err
			}
			return netlink.LinkDel(link)
		},
		"bridge deleted": func() error {
			link, err := netlink.LinkByName(bridgeName)
			if err != nil {
				return err
			}
			return netlink.LinkDel(link)
		},
		"forwarding off":    func() error { return setSysctl(forwardingOf("uplink0"), "0") },
		"half a namespace":  func() error { return os.WriteFile(b.namespace("workload-half"), nil, 0o444) },
		"firewall replaced": func() error { return ruleset{subnet: b.subnet}.apply() },
	}
	for name, damage := range breakages {
		t.Run(name, func(t *testing.T) {
			must(t, damage())
			next := NewBridge(b.dir, b.log)
			must(t, next.Reconcile(t.Context(), map[string][]object.Port{"workload-web": ports}))
			if answer, err := ask(site.path, "tcp4", site.node+":8081"); err != nil || !strings.HasPrefix(answer, "web") {
				t.Errorf("after repair: got %q, %v", answer, err)
			}
			for _, path := range []string{gone, b.namespace("workload-half")} {
				if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s remains: %v", path, err)
				}
			}
			next.forget("workload-web")
		})
	}
}

func TestPortConflictsNameTheHolder(t *testing.T) {
	newSite(t)
	b := newTestBridge(t)
	ports := []object.Port{{Port: 80, HostPort: 8082}}
	_, _, err := b.Attach(t.Context(), "workload-first", ports)
	must(t, err)
	var taken *PortTakenError
	if _, _, err := b.Attach(t.Context(), "workload-second", ports); !errors.As(err, &taken) || taken.Holder != "workload workload-first" {
		t.Errorf("second holder of 8082: got %v", err)
	}
	if _, err := os.Stat(b.namespace("workload-second")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused workload left its namespace: %v", err)
	}
	l, err := net.Listen("tcp", ":8083")
	must(t, err)
	defer l.Close()
	_, _, err = b.Attach(t.Context(), "workload-third", []object.Port{{Port: 80, HostPort: 8083}})
	want := fmt.Sprintf("(pid %d)", os.Getpid())
	if !errors.As(err, &taken) || !strings.Contains(taken.Holder, want) {
		t.Errorf("port of a process: got %v, want holder with %s", err, want)
	}
	if l, err := net.Listen("tcp4", ":8082"); err == nil {
		l.Close()
		t.Error("another process could take a published port")
	}
	must(t, b.Detach("workload-first"))
	if l, err := net.Listen("tcp4", ":8082"); err != nil {
		t.Errorf("port after Detach: %v", err)
	} else {
		l.Close()
	}
}

func TestForwardingOnlyAsNeeded(t *testing.T) {
	newSite(t)
	b := newTestBridge(t)
	forwarding := func(link string) string {
		data, err := os.ReadFile("/proc/sys/" + forwardingOf(link))
		must(t, err)
		return strings.TrimSpace(string(data))
	}
	_, _, err := b.Attach(t.Context(), "workload-a", nil)
	must(t, err)
	if got := forwarding("uplink0"); got != "1" {
		t.Errorf("forwarding of the uplink with a workload: got %s, want 1", got)
	}
	if got := forwarding("all"); got != "0" {
		t.Errorf("forwarding of all links: got %s, want 0", got)
	}
	must(t, b.Detach("workload-a"))
	if got := forwarding("uplink0"); got != "0" {
		t.Errorf("forwarding of the uplink without workloads: got %s, want 0", got)
	}
}

func TestLateAddressOpensTheLink(t *testing.T) {
	site, b := newSite(t), newTestBridge(t)
	uplink, err := netlink.LinkByName("uplink0")
	must(t, err)
	must(t, keepOnly(uplink, nil))
	path, _, err := b.Attach(t.Context(), "workload-web", []object.Port{{Port: 80, HostPort: 8084}})
	must(t, err)
	serveIn(t, path, "web", 80)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { b.Follow(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	must(t, netlink.AddrReplace(uplink, ipv4Addr(netip.MustParseAddr(site.node), 24)))
	eventually(t, "the site reaches the published port", func() bool {
		answer, err := ask(site.path, "tcp4", site.node+":8084")
		return err == nil && strings.HasPrefix(answer, "web")
	})
}

func TestAttachRefusesForeignIDs(t *testing.T) {
	b := NewBridge(t.TempDir(), slog.New(slog.DiscardHandler))
	for _, id := range []string{"", "../x", "a/b", "A", strings.Repeat("a", 121)} {
		if _, _, err := b.Attach(t.Context(), id, nil); err == nil {
			t.Errorf("Attach(%q): got no error", id)
		}
		if err := b.Detach(id); err == nil {
			t.Errorf("Detach(%q): got no error", id)
		}
	}
}

// inNamespace runs f on a thread inside the namespace at path.
func inNamespace(path string, f func() error) error {
	return onOwnThread(func() error {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open network namespace %s: %w", path, err)
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", path, err)
		}
		return f()
	})
}
