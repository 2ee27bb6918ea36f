// Package workload is the controller of the kind Workload for the loop of internal/node/reconcile: its image,
// volumes, container and health check. It does not decide when to restart, and uses only the interfaces of
// internal/node/sandbox and its own. It depends on those and on internal/container, internal/disk and
// internal/object.
package workload
