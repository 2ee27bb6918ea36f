// Command oscine-log keeps the output of one container: its shim starts it,
// with the container's standard output and error as descriptors 3 and 4, and
// it writes them to a journal. It outlives oscined.
package main
