// Package urgency turns a request's deadline into the scheduling of the thread
// that serves it: the nearer the deadline, the higher the FIFO priority. It is
// for the product's own serving path, whose requests are short; the kernel's
// fair server keeps everything else alive meanwhile. It decides nothing about
// cgroups and keeps no state.
//
// A Go program that uses it keeps the threads it gave an urgency to itself: the
// Go runtime would take a thread away from a goroutine that ran for 10 ms, at
// the next function call, and leave it to threads of ordinary priority to give
// it back. Engine workers in C, and Go loops of //go:nosplit functions under
// GODEBUG=asyncpreemptoff=1, are safe.
package urgency
