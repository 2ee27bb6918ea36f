// Package urgency turns a request's deadline into the scheduling of the thread
// that serves it: the nearer the deadline, the higher the FIFO priority. It is
// for the product's own serving path, whose requests are short; the kernel's
// fair server keeps everything else alive meanwhile. It decides nothing about
// cgroups and keeps no state.
package urgency
