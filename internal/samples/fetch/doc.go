// Command fetch puts all samples into the cache: go run ./internal/samples/fetch.
package main
