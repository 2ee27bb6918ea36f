// Package repository makes and keeps a release folder: the files of releases
// and the TUF metadata that signs them (The Update Framework, specification
// 1.0), as any TUF client reads them from a web server or a disk:
//
//	metadata/timestamp.json, metadata/N.ROLE.json
//	targets/VERSION/ARCH-FLAVOUR/DIGEST.FILE
//
// Files never change: a publication adds some and then replaces timestamp.json,
// so that a reader sees the old state or the new one. What lacks signatures
// waits in the folder .staged until keys elsewhere signed it.
//
// It checks what it publishes by go-tuf and does not read as a client: that is
// package source.
package repository
