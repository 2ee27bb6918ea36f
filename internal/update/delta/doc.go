// Package delta makes and applies transfer files: the form in which a root
// partition or a kernel image travels. A transfer is a row of parts, each
// compressed by itself with zstd, in a delta with pieces of old content as its
// dictionary. An index at the head says what every part makes and what its
// digest is, so that nothing is decoded unchecked, parts that are there already
// are left out, and memory is bounded. Which old pieces help is found by the
// files' names when the delta is made; who applies it needs no file system.
//
// It opens no connection and knows no signature. It depends on the types of
// package update, on klauspost's zstd and on go-erofs.
package delta
