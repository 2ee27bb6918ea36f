// Package classes measures on the machine it runs on how late a thread of
// each class wakes, alone and beside batch load, and shows the histograms. On a
// node it measures the classes that the daemon keeps; elsewhere it makes them
// with internal/isolate in a slice of its own, which is gone afterwards. It reports what the machine would
// not let it set.
package classes
