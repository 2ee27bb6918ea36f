// Command relock regenerates internal/debian/lock.json from what the mirror offers today: go run
// ./internal/debian/relock [KERNEL-VERSION].
package main
