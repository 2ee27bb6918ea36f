// Command fetch puts the models with which engines are tested, and the pinned
// libraries of the engines, into the cache.
package main
