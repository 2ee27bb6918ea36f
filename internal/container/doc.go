// Package container owns images and containers: it embeds containerd's stores,
// snapshotter, transfer service and shim manager in this process, and adds
// Oscine's policy on top (who may be pulled, what a container may do, how much
// an image may take). It decides neither where a container runs nor whether it
// should: internal/node calls it with cores, cgroup and network already chosen.
//
// Containers belong to their shims, not to this process: they go on when it
// dies, and Open takes them over again.
//
// Layers are kept by the overlayfs snapshotter. The erofs snapshotter pulls
// faster, but it needs mkfs.erofs 1.8 on the node, and an Oscine image carries
// no such program.
package container
