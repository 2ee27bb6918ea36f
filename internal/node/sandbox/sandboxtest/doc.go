// Package sandboxtest has in-memory fakes for tests of what starts containers: a runtime, a network, an
// isolator and devices that record their calls and fail on request. It depends on internal/node/sandbox and
// its dependencies.
package sandboxtest
