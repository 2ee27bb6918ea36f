package network

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/durable"
)

// maxNameservers is what resolvers read of resolv.conf(5).
const maxNameservers = 3

// nameservers lists the configured ones, then those of the leases; the caller
// holds mu.
func (n *Node) nameservers() []netip.Addr {
	var list []netip.Addr
	add := func(a netip.Addr) {
		if len(list) < maxNameservers && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	for _, text := range n.cfg.Net.Nameservers {
		if a, err := netip.ParseAddr(text); err == nil {
			add(a)
		}
	}
	for _, l := range n.byName() {
		for _, a := range l.lease.nameservers {
			add(a)
		}
	}
	return list
}

// writeResolvConf writes resolv.conf where it changed, at once for its
// readers. A failure is logged: the network works without names.
func (n *Node) writeResolvConf() {
	n.mu.Lock()
	defer n.mu.Unlock()
	var search []string
	for _, l := range n.byName() {
		search = append(search, l.lease.search...)
	}
	text := resolvConf(n.nameservers(), search)
	if text == n.last {
		return
	}
	if err := replaceFile(n.cfg.ResolvConf, text); err != nil {
		n.log.Error("write name servers", "file", n.cfg.ResolvConf, "error", err)
		return
	}
	n.last = text
}

func resolvConf(servers []netip.Addr, search []string) string {
	var text strings.Builder
	text.WriteString("# written by oscined\n")
	if len(search) > 0 {
		slices.Sort(search)
		fmt.Fprintf(&text, "search %s\n", strings.Join(slices.Compact(search), " "))
	}
	for _, a := range servers {
		fmt.Fprintf(&text, "nameserver %s\n", a)
	}
	text.WriteString("options edns0 timeout:2\n")
	return text.String()
}

func replaceFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(path, []byte(text), 0o644)
}
