// Package object owns the oscine.dev/v1 objects as a person writes them in
// YAML or JSON: Machine, Workload and Model. It decodes, defaults and
// validates them and reports every mistake of a file at once, each with its
// line and path. It reads no files, talks to no node and decides nothing.
package object
