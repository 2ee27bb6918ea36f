// Package reconcile keeps objects as they were asked for, by one loop for every
// kind: the store of what is desired, what was observed of it, who is woken
// when and after which pause, who watches, and the events that tell of it. What
// it takes to run an object is a Controller's, one for each kind; this package
// starts no process, reads no clock and knows no kind. It depends on
// internal/object, internal/node/allocate and internal/journal.
package reconcile
