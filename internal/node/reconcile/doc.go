// Package reconcile keeps objects in their desired state, by one loop for every kind: the store of desired
// objects, their observed state, waking with backoff, watchers and events. Running an object is the task of a
// Controller, one for each kind; this package starts no process, reads no clock and knows no kind. It depends
// on internal/object, internal/node/allocate and internal/journal.
package reconcile
