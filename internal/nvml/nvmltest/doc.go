// Package nvmltest makes a machine with two H100 for tests where there is no
// GPU: it compiles a stand-in for NVIDIA's management library from C in
// testdata, and wraps the real helper program so that it loads this library.
// It depends on gcc and the go command, and skips a test where one is missing.
package nvmltest
