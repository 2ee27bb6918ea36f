// Command qpu is a driver program as a vendor would write one: it reports a quantum processor that neither
// the kernel nor Oscine knows.
package main
