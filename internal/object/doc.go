// Package object owns the oscine.dev/v1 objects as written in YAML or JSON: the table of kinds with a row for
// each, the keys and identifiers of objects, and their decoding, defaults and checks, which report every
// mistake of a file at once, each with its line and path. It reads no files, talks to no node and decides
// nothing.
package object
