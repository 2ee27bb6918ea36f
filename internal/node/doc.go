// Package node owns what a node is meant to run and keeps it running: the
// store of applied objects, their placement, and one controller for each
// workload and model that reconciles it with internal/container,
// internal/network, internal/serve and internal/place. It knows nothing of
// the API's wire format and of how the machine was booted.
package node
