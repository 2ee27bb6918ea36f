// Package explain owns the description of what a manifest may hold: a tree of
// fields for each kind, made from the Go types, their comments, the defaults
// they set and the bounds they check, and the reference docs/manifests.md that
// is written from it. It depends on internal/object alone and reads no files
// at run time.
package explain
