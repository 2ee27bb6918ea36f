// Command fetch puts the models with which engines are tested, and the pinned
// libraries of the engines, into the cache; those of large engines, which make test
// leaves out, where its arguments name them.
package main
