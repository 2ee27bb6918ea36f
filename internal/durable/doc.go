// Package durable replaces and removes files so that a power failure at any
// moment leaves the old file or the new one, whole and under its name. It knows
// nothing of what is in them and depends on the standard library only, without
// net, because PID 1 contains it.
package durable
