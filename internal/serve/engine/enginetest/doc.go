// Package enginetest is an engine for tests, in Go alone: it adds, streams,
// takes byte strings, sleeps and misbehaves, as its model files say. It shows what an engine must implement,
// and no shipped program contains it.
package enginetest
