// Package enginetest is an engine for tests, in Go alone: it adds, streams,
// takes byte strings, sleeps and misbehaves, as its model files say. It proves
// what an engine has to bring, and is no part of any program that is shipped.
package enginetest
