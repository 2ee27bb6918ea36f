// Package release holds what the programs of one release share, each with one reader and
// one writer: the names of the partitions and where an encrypted one has its parts, the
// verity argument of the kernel command line, hash trees and which root a slot holds, the
// boot counter in the name of a kernel image, the order of versions, the facts of a boot
// that stage 1 and PID 1 hand to the daemon, the messages between the daemon and PID 1,
// and the path of the Machine file. It opens no file and decides nothing. Stage 1 and
// PID 1 contain it, so it depends on the standard library alone, without net.
package release
