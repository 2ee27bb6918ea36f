// Package artifacttest owns registries for tests: one in this process that can be
// made to fail, and Docker's own in a process beside it. It is never part of a
// program. It depends on internal/debian for the latter.
package artifacttest
