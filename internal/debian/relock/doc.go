// Command relock writes internal/debian/lock.json anew from what the mirror
// offers today: go run ./internal/debian/relock [KERNEL-VERSION].
package main
