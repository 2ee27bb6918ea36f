package network

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/object"
)

// ruleset is all that the table ip oscine says. It is written as a whole in
// one transaction of the kernel, so no packet ever meets half of it.
type ruleset struct {
	subnet    netip.Prefix
	guarded   []string // links that forward for workloads only
	published []publication
	closed    []int        // TCP ports of the node
	admitted  []netip.Addr // workloads that may reach them
}

type publication struct {
	port object.Port
	addr netip.Addr
}

const tableName = "oscine"

// ctStatusDNAT is IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h.
const ctStatusDNAT = 1 << 5

// apply replaces the table. What it writes, in the words of nft(8):
//
//	chain early       { type filter hook prerouting priority raw;
//	                    iifname oscine0 ip daddr 127.0.0.0/8 drop }
//	chain apart       { type filter hook prerouting priority filter;
//	                    iifname oscine0 ip daddr SUBNET fib daddr type != local ct status ! dnat
//	                    reject with icmp admin-prohibited }
//	chain prerouting  { type nat hook prerouting priority dstnat; fib daddr type local jump published }
//	chain output      { type nat hook output priority -100;       fib daddr type local jump published }
//	chain published   { tcp dport 8080 dnat to 10.213.0.5:80 … }
//	chain postrouting { type nat hook postrouting priority srcnat;
//	                    oifname oscine0 ct status dnat ip saddr 127.0.0.0/8 masquerade
//	                    oifname oscine0 ct status dnat ip saddr SUBNET masquerade
//	                    oifname != oscine0 ip saddr SUBNET masquerade }
//	chain input       { type filter hook input priority filter;
//	                    iifname oscine0 ip saddr ADMITTED accept …
//	                    iifname oscine0 tcp dport 7443 reject with icmp admin-prohibited … }
//	chain forward     { type filter hook forward priority filter;
//	                    iifname oscine0 ip saddr != SUBNET drop
//	                    oifname oscine0 ct state established,related accept
//	                    oifname oscine0 ct status dnat accept
//	                    oifname oscine0 reject with icmp admin-prohibited
//	                    iifname GUARDED oifname != oscine0 drop … }
func (r ruleset) apply() error {
	conn, err := nftables.New()
	if err != nil {
		return explain(err, "nf_tables", "open the firewall")
	}
	// Adding before deleting makes the deletion succeed the first time too.
	conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableName})
	conn.DelTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableName})
	w := writer{conn: conn, table: conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableName})}
	r.nat(&w)
	r.filter(&w)
	return explain(conn.Flush(), "nf_tables", "write firewall table "+tableName)
}

func (r ruleset) nat(w *writer) {
	published := w.conn.AddChain(&nftables.Chain{Name: "published", Table: w.table})
	for _, hook := range []struct {
		name string
		hook *nftables.ChainHook
	}{{"prerouting", nftables.ChainHookPrerouting}, {"output", nftables.ChainHookOutput}} {
		chain := w.chain(hook.name, nftables.ChainTypeNAT, hook.hook, nftables.ChainPriorityNATDest)
		w.rule(chain, destinationIsLocal(expr.CmpOpEq), []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: published.Name}})
	}
	slices.SortFunc(r.published, func(a, b publication) int { return cmp.Compare(portKey(a.port), portKey(b.port)) })
	for _, p := range r.published {
		w.rule(published, destinationPort(p.port), forwardTo(p.addr, p.port.Port))
	}
	post := w.chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	masquerade := []expr.Any{&expr.Masq{}}
	w.rule(post, toBridge(expr.CmpOpEq), wasForwarded(expr.CmpOpNeq), source(netip.MustParsePrefix("127.0.0.0/8"), expr.CmpOpEq), masquerade)
	w.rule(post, toBridge(expr.CmpOpEq), wasForwarded(expr.CmpOpNeq), source(r.subnet, expr.CmpOpEq), masquerade)
	w.rule(post, toBridge(expr.CmpOpNeq), source(r.subnet, expr.CmpOpEq), masquerade)
}

func (r ruleset) filter(w *writer) {
	early := w.chain("early", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	drop := []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	accept := []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	w.rule(early, from(bridgeName), destination(netip.MustParsePrefix("127.0.0.0/8")), drop)

	// ICMP code 13: communication administratively prohibited (RFC 1812, 5.2.7.1).
	reject := []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 13}}
	// Refused before routing, which would send ICMP redirects and with them use
	// up the sender's allowance of ICMP errors.
	apart := w.chain("apart", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityFilter)
	w.rule(apart, from(bridgeName), destination(r.subnet), destinationIsLocal(expr.CmpOpNeq), wasForwarded(expr.CmpOpEq), reject)

	input := w.chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	for _, addr := range r.admitted {
		w.rule(input, from(bridgeName), source(netip.PrefixFrom(addr, 32), expr.CmpOpEq), accept)
	}
	for _, port := range r.closed {
		w.rule(input, from(bridgeName), destinationPort(object.Port{Port: port, Protocol: "tcp"}), reject)
	}

	forward := w.chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	w.rule(forward, from(bridgeName), source(r.subnet, expr.CmpOpNeq), drop)
	w.rule(forward, toBridge(expr.CmpOpEq), established(), accept)
	w.rule(forward, toBridge(expr.CmpOpEq), wasForwarded(expr.CmpOpNeq), accept)
	w.rule(forward, toBridge(expr.CmpOpEq), reject)
	for _, name := range r.guarded {
		w.rule(forward, from(name), toBridge(expr.CmpOpNeq), drop)
	}
}

// writer collects one transaction.
type writer struct {
	conn  *nftables.Conn
	table *nftables.Table
}

func (w *writer) chain(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
	return w.conn.AddChain(&nftables.Chain{Name: name, Table: w.table, Type: kind, Hooknum: hook, Priority: priority})
}

func (w *writer) rule(chain *nftables.Chain, parts ...[]expr.Any) {
	w.conn.AddRule(&nftables.Rule{Table: w.table, Chain: chain, Exprs: slices.Concat(parts...)})
}

func linkIs(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: padded}}
}

func from(link string) []expr.Any { return linkIs(expr.MetaKeyIIFNAME, expr.CmpOpEq, link) }

func toBridge(op expr.CmpOp) []expr.Any { return linkIs(expr.MetaKeyOIFNAME, op, bridgeName) }

// address compares the IPv4 address at offset in the packet's header.
func address(offset uint32, p netip.Prefix, op expr.CmpOp) []expr.Any {
	mask := make([]byte, 4)
	binary.BigEndian.PutUint32(mask, ^uint32(0)<<(32-p.Bits()))
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

func source(p netip.Prefix, op expr.CmpOp) []expr.Any { return address(12, p, op) }

func destination(p netip.Prefix) []expr.Any { return address(16, p, expr.CmpOpEq) }

func destinationIsLocal(op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: op, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

func destinationPort(p object.Port) []expr.Any {
	proto := byte(unix.IPPROTO_TCP)
	if protocolOf(p) == "udp" {
		proto = unix.IPPROTO_UDP
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(uint16(hostPortOf(p)))},
	}
}

func forwardTo(addr netip.Addr, port int) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: addr.AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(uint16(port))},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2, Specified: true},
	}
}

func conntrack(key expr.CtKey, bits uint32, op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: make([]byte, 4)},
	}
}

// wasForwarded matches connections that came in by a published port.
// With CmpOpEq it matches all others.
func wasForwarded(op expr.CmpOp) []expr.Any { return conntrack(expr.CtKeySTATUS, ctStatusDNAT, op) }

func established() []expr.Any {
	return conntrack(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED, expr.CmpOpNeq)
}
