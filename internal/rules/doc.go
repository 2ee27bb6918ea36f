// Package rules holds no code, only the tests of the project's rules: which package may import which, how
// packages and exported names are documented, and what may not be committed. They read the source tree and
// change nothing.
package rules
