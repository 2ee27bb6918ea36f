// Package hardware owns the map of a machine: packages, dies, cores, threads
// and their kinds, caches, NUMA nodes, the PCI tree, accelerators, networks,
// disks, the links between them and their present state. It reads
// sysfs, procfs and the device tree under any root path or archive, so that a
// recorded machine and the live one go through the same code. It never
// changes the machine, never decides where work goes, and depends on no other
// package of Oscine. What could not be read is named in Machine.Gaps; a
// damaged or hostile tree yields a partial map, never a panic.
package hardware
