// Command relock regenerates internal/debian/lock.json from what the mirror offers today: go run
// ./internal/debian/relock [-kernel VERSION] [-only SET,…].
package main
