// Package sandboxtest holds a machine in memory for tests of what starts
// containers: a runtime, a network, an isolator and devices that remember what
// they were told and fail when they are asked to. It depends on
// internal/node/sandbox and on what that is given.
package sandboxtest
