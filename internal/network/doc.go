// Package network owns the two networks of a node. Node brings up the node's
// own interfaces on the image: links, VLANs and bonds, DHCPv4 or static
// addresses, routes, resolv.conf and the clock by NTP; on a hosted node it is
// not used and nothing of the host's network is touched. Bridge gives every
// workload a network namespace of its own behind the bridge oscine0, publishes ports and keeps workloads
// apart with one nftables table. It keeps no state file of its own beyond
// /run: what exists in the kernel is the state, so a daemon that crashed at
// any point finds and repairs it. It depends on internal/object for what is asked for.
package network
