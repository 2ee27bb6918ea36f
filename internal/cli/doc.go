// Package cli owns the commands of oscine. Each command
// parses its flags, calls one package that does the work, and prints; it
// reads and writes only through its Env, so that tests can run it in process.
package cli
