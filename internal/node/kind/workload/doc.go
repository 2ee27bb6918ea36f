// Package workload is what the kind Workload adds to the loop of
// internal/node/reconcile: its image, volumes, container and health check. It
// does not decide when it is started again, and never reaches past the
// interfaces of internal/node/sandbox and its own. It depends on those and on
// internal/container, internal/disk and internal/object.
package workload
