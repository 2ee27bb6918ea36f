// Package urgency turns a request's deadline into the scheduling of the thread
// that serves it: the nearer the deadline, the higher the FIFO priority. It is
// for the product's own serving path, whose requests are short; the kernel's
// fair server keeps everything else alive meanwhile. It decides nothing about
// cgroups and keeps no state.
//
// Threads of a Go program that have an urgency must not depend on those that
// have none. The Go runtime takes its processor from a goroutine that ran for
// 10 ms, at the next function call, and leaves it to threads of ordinary
// priority to give it back; Go loops of //go:nosplit functions under
// GODEBUG=asyncpreemptoff=1 are safe. C code called through purego or cgo is
// safe too where a second of Go's processors (GOMAXPROCS) is free when it
// returns: under FIFO beside four spinners on one CPU, calls of 10 ms came back
// within 0.02 ms of their own processor time, and with a single one 25 ms late
// in one of forty.
package urgency
