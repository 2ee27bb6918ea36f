// Package version owns the name of the release that the programs were built
// from, which the linker sets.
package version
