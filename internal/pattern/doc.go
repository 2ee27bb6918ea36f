// Package pattern holds regular expressions that are compiled when they are first used,
// not when the program starts: a daemon has dozens, and needs few of them to be ready.
// It depends on nothing.
package pattern
