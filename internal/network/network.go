package network

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/object"
)

// Config is the part of a Machine that the node's network is made of.
type Config struct {
	Hostname string
	Net      object.MachineNet
	Time     object.MachineTime

	// ResolvConf is the file to keep the name servers in; default
	// /run/oscine/resolv.conf, where the image's /etc/resolv.conf points.
	ResolvConf string
}

// State is what the node's network looks like at one moment.
type State struct {
	Links       []LinkState  // by name
	Nameservers []netip.Addr // as in resolv.conf
	Clock       ClockState
}

// LinkState is one configured interface.
type LinkState struct {
	Name      string
	MAC       string
	Carrier   bool   // a cable, or its like, is in
	Source    string // dhcp or static
	Addresses []netip.Prefix
	Gateway   netip.Addr // zero without a default route
	Expires   time.Time  // of the lease; zero for never
	Err       error      // why it has no address; nil when all is well
}

// Node brings up and keeps the node's own network on the image.
type Node struct {
	cfg    Config
	log    *slog.Logger
	online chan struct{} // closed with the first address
	clock  *clock

	creating map[string]string // link → what was last reported of creating it; of follow alone

	mu    sync.Mutex
	links map[int]*link // by index
	last  string        // what resolv.conf holds
}

// link is one interface that the configuration names, while it exists.
type link struct {
	state  LinkState
	config object.Interface
	lease  lease // of DHCP; zero else
	stop   context.CancelFunc
	done   chan struct{} // closed when the work behind stop has ended
}

// New prepares the network that cfg describes; Run does the work.
func New(cfg Config, log *slog.Logger) *Node {
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = DefaultDir + "/resolv.conf"
	}
	n := &Node{cfg: cfg, log: log, online: make(chan struct{}), links: map[int]*link{}, creating: map[string]string{}}
	n.clock = newClock(log)
	return n
}

// Run sets the host name, brings up lo and every configured link as it
// appears, and keeps addresses, name servers and the clock right until ctx
// ends. Links that are absent, without carrier or without a DHCP server hold
// up nothing: they are tried again, and State says what they wait for. It
// returns an error only when the node has no right to configure its network.
func (n *Node) Run(ctx context.Context) error {
	if n.cfg.Hostname != "" {
		if err := unix.Sethostname([]byte(n.cfg.Hostname)); err != nil {
			return fmt.Errorf("set host name %s: %w", n.cfg.Hostname, err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("look at lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return explain(err, "netlink", "bring up lo")
	}
	if err := n.removeUnconfigured(); err != nil {
		n.log.Warn("remove links that are no longer configured", "error", err)
	}
	n.writeResolvConf()
	var clock sync.WaitGroup
	if !n.cfg.Time.Disabled {
		clock.Go(func() { n.clock.run(ctx, n.online, n.timeServers) })
	}
	n.watch(ctx)
	clock.Wait()
	return nil
}

// State returns the network as it is now.
func (n *Node) State() State {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := State{Nameservers: n.nameservers(), Clock: n.clock.State()}
	for _, l := range n.links {
		state := l.state
		state.Addresses = slices.Clone(state.Addresses)
		s.Links = append(s.Links, state)
	}
	slices.SortFunc(s.Links, func(a, b LinkState) int { return compareNames(a.Name, b.Name) })
	return s
}

// change updates the state of l and what follows from it.
func (n *Node) change(l *link, update func()) {
	n.mu.Lock()
	update()
	addressed := len(l.state.Addresses) > 0
	n.mu.Unlock()
	n.writeResolvConf()
	if addressed {
		n.mu.Lock()
		defer n.mu.Unlock()
		select {
		case <-n.online:
		default:
			close(n.online)
		}
	}
}

// timeServers lists the NTP servers to ask, the configured ones alone or those
// of the leases or, with neither, Debian's pool.
func (n *Node) timeServers() []string {
	if len(n.cfg.Time.Servers) > 0 {
		return n.cfg.Time.Servers
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var servers []string
	for _, l := range n.byName() {
		for _, a := range l.lease.timeServers {
			servers = append(servers, a.String())
		}
	}
	if len(servers) == 0 {
		return []string{"2.debian.pool.ntp.org"}
	}
	return servers
}

// byName orders the links so that outcomes repeat; the caller holds mu.
func (n *Node) byName() []*link {
	var links []*link
	for _, l := range n.links {
		links = append(links, l)
	}
	slices.SortFunc(links, func(a, b *link) int { return compareNames(a.state.Name, b.state.Name) })
	return links
}

// compareNames puts eth2 before eth10.
func compareNames(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}
