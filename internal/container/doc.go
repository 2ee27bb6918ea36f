// Package container owns images and containers: it puts containerd's stores,
// overlayfs snapshotter, transfer service and shim manager together in this
// process, without its plugin system, CRI or API (32 ms of CPU to open, 18 MB
// resident), and adds Oscine's policy on top: who may be pulled, what a
// container may do, how much an image may take. It decides neither where a
// container runs nor whether it should: internal/node calls it with cores,
// cgroup and network already chosen. It depends on internal/journal, and on
// the programs crun or runc, containerd-shim-runc-v2 and oscine-log.
//
// Containers belong to their shims, not to this process: they keep running when it dies, and Open takes them
// over again, including exits that happened meanwhile.
//
// Layers are kept by the overlayfs snapshotter, id-mapped for each container's
// own range of user ids. The erofs snapshotter pulls faster, but it needs
// mkfs.erofs 1.8 on the node, and an Oscine image carries no such program.
package container
