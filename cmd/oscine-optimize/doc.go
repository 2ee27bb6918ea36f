// Command oscine-optimize optimises one model on the CPUs that it runs on. It is the
// tool of the packs optimize-…: a workload runs it, with a model as an archive on
// standard input and the result on standard output.
package main
