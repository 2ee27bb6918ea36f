// Package rules holds no code, only the tests that keep the house in order:
// which package may import which, what every package and exported name must
// say of itself, and what may not be committed. They read the source tree and
// change nothing.
package rules
