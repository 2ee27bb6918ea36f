// Command cost measures the processor time that a request to a model costs in
// every part of the way, beside bare echo servers, the engine alone and other
// model servers, all in one run, and prints the tables:
//
//	go run ./internal/bench/cost -o out/cost.json
//	go run ./internal/bench/cost -engines -o out/engines.json
//	go run ./internal/bench/cost -instructions
//
// The second measures every engine of the worker program, alone and served. The third
// counts instructions in a guest, which the host's load does not change.
// Clients are not counted. Only processor time is read and only ratios are judged,
// so that a busy host changes little.
package main
