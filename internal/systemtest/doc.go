// Package systemtest holds the tests of the whole system as a person uses it:
// the real commands against a real daemon, in a booted machine and hosted on
// this one. It has no code of its own.
package systemtest
