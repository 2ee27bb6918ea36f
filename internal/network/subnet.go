package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
)

// subnetBits gives each node 4093 workload addresses.
const subnetBits = 20

// chooseSubnet returns the first private /20 that overlaps none of taken: the
// node's own addresses and routes. The search begins where site networks are
// rare.
func chooseSubnet(taken []netip.Prefix) (netip.Prefix, error) {
	for _, pool := range []string{"10.213.0.0/16", "10.128.0.0/9", "172.16.0.0/12", "192.168.0.0/16", "10.0.0.0/9"} {
		pool := netip.MustParsePrefix(pool)
		for subnet := netip.PrefixFrom(pool.Addr(), subnetBits); pool.Contains(subnet.Addr()); subnet = nextPrefix(subnet) {
			if !overlapsAny(subnet, taken) {
				return subnet, nil
			}
		}
	}
	return netip.Prefix{}, errors.New("every private IPv4 network of 4096 addresses is in use on this node: remove a route, then apply the workload again")
}

func overlapsAny(p netip.Prefix, others []netip.Prefix) bool {
	for _, o := range others {
		if o.Bits() > 0 && p.Overlaps(o) { // a default route overlaps everything and takes nothing
			return true
		}
	}
	return false
}

func nextPrefix(p netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(offsetAddr(p.Addr(), 1<<(32-p.Bits())), p.Bits())
}

func offsetAddr(a netip.Addr, by uint32) netip.Addr {
	b := a.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+by)
	return netip.AddrFrom4(b)
}

// gatewayOf is the node's own address in the workload subnet, its first.
func gatewayOf(subnet netip.Prefix) netip.Addr { return offsetAddr(subnet.Masked().Addr(), 1) }

// allocate picks the address of id: the same one every time while nobody else
// has it, so that a workload keeps its address over a reboot.
func allocate(subnet netip.Prefix, id string, used map[netip.Addr]bool) (netip.Addr, error) {
	hash := fnv.New32a()
	hash.Write([]byte(id))                    // fnv never returns an error
	size := uint32(1)<<(32-subnet.Bits()) - 3 // without network, gateway and broadcast
	for i := range size {
		addr := offsetAddr(subnet.Masked().Addr(), 2+(hash.Sum32()+i)%size)
		if !used[addr] {
			return addr, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("all %d workload addresses of %s are in use: delete a workload first", size, subnet)
}

// macOf derives the hardware address from the address, so that a workload that
// comes back does not wait for stale ARP entries.
func macOf(addr netip.Addr) []byte {
	a := addr.As4()
	return []byte{0x0a, 0x58, a[0], a[1], a[2], a[3]}
}
