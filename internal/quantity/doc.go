// Package quantity parses quantities in manifests and flags:
// Kubernetes' notation (500m, 2, 256Mi, 1.5Gi, 1e3) and the units of bytes that
// are usual elsewhere (64MiB, 1 GB). It bounds what it reads before it computes.
// internal/printable formats them. It depends on Kubernetes'
// parser alone.
package quantity
