// Package doctor finds out what a machine can do for Oscine by trying it:
// kernel mechanisms that workloads stand on, and the tools that build images
// and run local machines. Every answer says what depends on it and how to get
// it. It changes nothing that outlives a probe: mounts, links and processes
// are made in namespaces of their own and are gone when it returns. It depends
// on internal/linux alone.
package doctor
