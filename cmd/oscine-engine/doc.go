// Command oscine-engine is the engine worker: it loads one model with the engine
// that its first argument names and runs it for the daemon over a Unix socket
// and shared memory. It is started by oscined inside the engine's pack, which
// holds the engine's libraries.
package main
