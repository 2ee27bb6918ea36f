// Package repositorytest makes small releases and release folders for tests: real
// ones, whose kernel image holds a few bytes for a kernel.
package repositorytest
