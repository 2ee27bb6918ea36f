// Package litert runs TensorFlow Lite models with LiteRT. It calls the C API of
// libLiteRt, whose signatures differ between versions: they are those of the
// pinned one. It is part of engine workers, not of the daemon.
//
// LiteRT can't run every model it loads: one whose outputs have sizes that only
// a run tells is refused by the self-test of the worker, and another engine that
// reads the format takes it.
package litert
