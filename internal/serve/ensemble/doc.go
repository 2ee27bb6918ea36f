// Package ensemble owns the order of an ensemble's steps: which tensors come from
// where, and that none waits for itself. It knows models by their names only and
// depends on nothing, so that manifests are checked without a node.
package ensemble
