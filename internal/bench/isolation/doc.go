// Command isolation measures the classes' wake-up latency against batch load
// on a machine whose clock counts instructions, beside what stock Linux
// offers, prints the tables and writes the figures to a file:
//
//	go run ./internal/bench/isolation -o out/isolation.json
package main
