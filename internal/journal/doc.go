// Package journal keeps log lines on disk within a bound: of containers, of
// oscined and of init. One journal is a file in the format that Kubernetes
// runtimes write (the CRI logging format), plus one older file beside it, so
// common log shippers read it as it is. A Writer never syncs: lines survive the
// death of every process, the last ones may not survive a power failure, and a
// reader passes over whatever such a failure leaves. The package knows nothing
// of containers and depends on the standard library only.
package journal
