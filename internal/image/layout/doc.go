// Package layout knows how Oscine's disks are divided: where the partitions lie,
// the partition table that says so, and the ESP with the boot loader's files. It
// writes and reads these in image files and on block devices alike, and checks
// what it reads, which may come from anyone. It builds no content and decides
// nothing about which disk is written.
package layout
