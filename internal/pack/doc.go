// Package pack owns packs: erofs files that carry an engine (a worker program,
// its libraries and /pack.json, the manifest) or driver programs, apart from the
// operating system's version, with the dm-verity hash tree of their blocks. It
// builds them reproducibly from pinned inputs, keeps them in a store on the data
// partition, and mounts them read-only after checking their SHA-256 digest. It
// never starts what is inside.
package pack
