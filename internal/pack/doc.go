// Package pack owns packs: erofs files that carry an engine (a worker program,
// its libraries and /pack.json, the manifest) or driver programs, apart from the
// operating system's version, with the dm-verity hash tree of their blocks. It
// builds them reproducibly from pinned inputs, keeps them in a store on the data
// partition, and mounts them read-only through dm-verity, or after checking their
// SHA-256 digest where a machine has none. It never starts what is inside.
package pack
