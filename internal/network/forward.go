package network

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// forward lets packets pass between the workloads and the links that have an
// address, and nothing else: on a node that routed nothing before it enables
// forwarding link by link and returns these links, for the firewall to keep
// them from routing anywhere but to workloads. A node that routes already is
// left as it is. With no workload attached, all is put back.
func (b *Bridge) forward(active bool) ([]string, error) {
	enabled, err := b.enabledLinks()
	if err != nil {
		return nil, err
	}
	global, err := os.ReadFile("/proc/sys/net/ipv4/conf/all/forwarding")
	if err != nil {
		return nil, fmt.Errorf("read net/ipv4/conf/all/forwarding: %w", err)
	}
	if !active {
		return nil, b.stopForwarding(enabled)
	}
	if err := setSysctl(forwardingOf(bridgeName), "1"); err != nil {
		return nil, err
	}
	if strings.TrimSpace(string(global)) == "1" {
		return nil, b.rememberLinks(nil) // somebody else routes here
	}
	uplinks, err := uplinkNames()
	if err != nil {
		return nil, err
	}
	for _, name := range uplinks {
		if slices.Contains(enabled, name) {
			continue
		}
		if old, err := os.ReadFile(filepath.Join("/proc/sys", forwardingOf(name))); err == nil && strings.TrimSpace(string(old)) == "1" {
			continue // routed before us
		}
		enabled = append(enabled, name)
	}
	// Remembered first: a crash in between must not leave a link that nobody
	// would put back.
	if err := b.rememberLinks(enabled); err != nil {
		return nil, err
	}
	for _, name := range enabled {
		if err := setSysctl(forwardingOf(name), "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return enabled, nil
}

func (b *Bridge) stopForwarding(enabled []string) error {
	for _, name := range append(enabled, bridgeName) {
		if err := setSysctl(forwardingOf(name), "0"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return b.rememberLinks(nil)
}

func forwardingOf(link string) string { return "net/ipv4/conf/" + link + "/forwarding" }

// uplinkNames lists the links with an address that others can reach.
func uplinkNames() ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var names []string
	for _, l := range links {
		a := l.Attrs()
		if a.Flags&net.FlagLoopback != 0 || a.Name == bridgeName || strings.ContainsAny(a.Name, "./") {
			continue // the dot and slash of a VLAN's name have another spelling in /proc/sys
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", a.Name, err)
		}
		if len(addrs) > 0 {
			names = append(names, a.Name)
		}
	}
	return names, nil
}

func (b *Bridge) linksFile() string { return filepath.Join(b.dir, "forwarding") }

func (b *Bridge) enabledLinks() ([]string, error) {
	data, err := os.ReadFile(b.linksFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return strings.Fields(string(data)), err
}

func (b *Bridge) rememberLinks(names []string) error {
	if len(names) == 0 {
		if err := os.Remove(b.linksFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(b.linksFile(), []byte(strings.Join(names, "\n")+"\n"), 0o644)
}
