// Package sandbox takes an object of any kind from a placement to a running
// container, and back: a part of the machine, its network, its isolation, its devices, its process. Each of
// these is behind a small interface, so that kinds are tested without a kernel. internal/node/reconcile
// decides when. It depends on internal/node/allocate, internal/node/reconcile, internal/container,
// internal/isolate and internal/object.
package sandbox
