// Package classes measures on the machine it runs on how late a thread of
// each class wakes, alone and beside batch load, and shows the histograms. It
// makes the classes with internal/isolate in a slice of its own, which is gone
// afterwards, and says what this machine would not let it set.
package classes
