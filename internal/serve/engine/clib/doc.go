// Package clib calls C libraries without a C compiler: it loads them with dlopen
// through purego, finds their functions, and passes texts and memory outside the
// Go heap. It is what the engines share; it knows none of them.
package clib
