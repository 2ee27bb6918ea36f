// Package servetest owns what the tests of serving share: a worker whose answers
// and faults a test chooses, which is the test's own program started once more,
// and a Starter that runs workers as plain child processes. Production code
// never imports it.
package servetest
