package doctor

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inNetworkNamespace runs f where it can change no network but its own.
func inNetworkNamespace(f func() (string, error)) (string, error) {
	return onOwnThread(func() (string, error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return "", fmt.Errorf("make a network namespace: %w", err)
		}
		return f()
	})
}

func networkNamespaces(*prober) (string, error) {
	return inNetworkNamespace(func() (string, error) { return "made one", nil })
}

func vethAndBridge(*prober) (string, error) {
	return inNetworkNamespace(func() (string, error) {
		bridge := netlink.NewLinkAttrs()
		bridge.Name = "probe0"
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: bridge}); err != nil {
			return "", fmt.Errorf("make a bridge: %w", err)
		}
		pair := netlink.NewLinkAttrs()
		pair.Name = "probe1"
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: pair, PeerName: "probe2"}); err != nil {
			return "", fmt.Errorf("make a veth pair: %w", err)
		}
		return "made both", nil
	})
}

// nfTables writes rules of every kind that the workload network uses.
func nfTables(*prober) (string, error) {
	return inNetworkNamespace(func() (string, error) {
		conn, err := nftables.New()
		if err != nil {
			return "", err
		}
		table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "probe"})
		if err := conn.Flush(); err != nil {
			return "", fmt.Errorf("make a table: %w", err)
		}
		nat := conn.AddChain(&nftables.Chain{Name: "nat", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
		filter := conn.AddChain(&nftables.Chain{Name: "filter", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
		if err := conn.Flush(); err != nil {
			return "", fmt.Errorf("make chains: %w", err)
		}
		var errs []error
		for _, rule := range []struct {
			what  string
			chain *nftables.Chain
			exprs []expr.Any
		}{
			{"masquerade", nat, []expr.Any{&expr.Masq{}}},
			{"connection state", filter, []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}}},
			{"local address", filter, []expr.Any{&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true}}},
			{"reject", filter, []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 13}}},
		} {
			conn.AddRule(&nftables.Rule{Table: table, Chain: rule.chain, Exprs: rule.exprs})
			if err := conn.Flush(); err != nil {
				errs = append(errs, fmt.Errorf("rule with %s: %w", rule.what, err))
			}
		}
		return "tables, NAT and reject", errors.Join(errs...)
	})
}

// forwarding looks for chains of others that drop what passes through the
// node: an accept in Oscine's own table does not outvote them.
func forwarding(*prober) (string, error) {
	conn, err := nftables.New()
	if err != nil {
		return "", err
	}
	chains, err := conn.ListChains()
	if err != nil {
		return "", fmt.Errorf("list firewall chains: %w", err)
	}
	for _, c := range chains {
		forwards := c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward
		drops := c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
		ip := c.Table.Family == nftables.TableFamilyIPv4 || c.Table.Family == nftables.TableFamilyINet
		if forwards && drops && ip {
			return "", fmt.Errorf("chain %s of table %s drops forwarded packets unless a rule of its own accepts them", c.Name, c.Table.Name)
		}
	}
	return "no other chain drops forwarded packets", nil
}
